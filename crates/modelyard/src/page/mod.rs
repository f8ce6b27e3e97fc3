//! Pages for people: the service's card at `/`, the reference of its API at `/docs`, and the
//! document that the reference is made from.
//!
//! Nothing here comes from another host, so all of it works without a network, and every address
//! is relative, so all of it works below `/services/{id}` and behind a proxy.

mod card;
mod docs;
mod html;
mod http;
mod mailed_link;

use axum::Router;
use axum::body::Bytes;
use modelyard_kernel::Result;
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;

use card::Card;

use crate::openapi::{self, About};

pub use card::front;

/// Adds its pages to a service. `described` is what its other routes say of themselves.
///
/// # Errors
/// When the document cannot be written: a defect of ours.
pub fn with_pages(routes: Router, described: OpenApi, about: &About) -> Result<Router> {
    let (pages, also_described) = http::routes().split_for_parts();
    let mut described = described;
    described.merge(also_described);
    let card = Card::of(&about.info, |path| described.paths.paths.contains_key(path));
    let document = Document::new(serde_json::to_vec(&openapi::complete(described, about)?)?);
    Ok(routes.merge(pages.with_state(http::Pages::new(&card, document))))
}

/// The OpenAPI document, ready to be sent.
#[derive(Clone, Debug)]
struct Document {
    etag: String,
    bytes: Bytes,
}

impl Document {
    fn new(json: Vec<u8>) -> Self {
        let hash = Sha256::digest(&json);
        let tag = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        // Weak: compressed or not, it means the same.
        Self { etag: format!("W/\"{tag}\""), bytes: json.into() }
    }
}

#[cfg(test)]
mod tests;
