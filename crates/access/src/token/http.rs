//! `/.well-known/jwks.json`, and new keys on demand.

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modelyard_kernel::{Caller, Result, reply};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Tokens;

/// The public keys that access tokens are signed with (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwks {
    /// Newest first.
    keys: Vec<Jwk>,
}

/// A public key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
struct Jwk {
    #[schema(value_type = String, example = "OKP")]
    kty: &'static str,
    #[schema(value_type = String, example = "Ed25519")]
    crv: &'static str,
    #[schema(value_type = String, example = "EdDSA")]
    alg: &'static str,
    #[serde(rename = "use")]
    #[schema(value_type = String, example = "sig")]
    usage: &'static str,
    /// Its name, which is in the header of each token.
    #[schema(example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    kid: String,
    /// The key.
    #[schema(example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    x: String,
}

impl Jwks {
    pub(super) fn new<'a>(keys: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let (kty, crv, alg, usage) = ("OKP", "Ed25519", "EdDSA", "sig");
        let jwk = |(kid, public): (&str, &[u8])| {
            let (kid, x) = (kid.to_owned(), URL_SAFE_NO_PAD.encode(public));
            Jwk { kty, crv, alg, usage, kid, x }
        };
        Self { keys: keys.map(jwk).collect() }
    }
}

pub(super) fn routes(tokens: Tokens) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_jwks))
        .routes(routes!(rotate_signing_keys))
        .with_state(tokens)
}

/// The keys that access tokens are signed with
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth",
    responses((status = 200, body = Jwks)))]
async fn get_jwks(State(tokens): State<Tokens>) -> Result<axum::Json<Jwks>> {
    Ok(axum::Json(tokens.jwks().await?))
}

/// Sign access tokens with a new key
///
/// The one before is believed until its tokens have ended.
#[utoipa::path(post, path = "/api/v1/auth/$rotate-signing-keys", tag = "auth",
    responses((status = 204)))]
async fn rotate_signing_keys(State(tokens): State<Tokens>, caller: Caller) -> Result<Response> {
    tokens.rotate(&caller).await?;
    Ok(reply::nothing())
}
