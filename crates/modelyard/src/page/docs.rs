//! The interactive reference: Swagger UI, which comes with the program.

use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use http::{HeaderMap, header};
use modelyard_kernel::{Failure, Result};
use utoipa_swagger_ui::Config;

use super::html::Escaped;
use super::mailed_link;
use crate::http::accepts_gzip;

/// The reference draws its icons from `data:` addresses. The styles that its script gives to elements
/// are no inline styles in the sense of a policy: it sets them through the object model.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self' data:; font-src 'self' data:; \
    connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Starts the reference. Without a validator, which would be another host.
const START: &str = "window.onload=()=>SwaggerUIBundle({url:'openapi.json',dom_id:'#reference',\
    deepLinking:true,validatorUrl:null,displayRequestDuration:true,tryItOutEnabled:true,\
    presets:[SwaggerUIBundle.presets.apis]});";

/// What the page is made of; the rest of the distribution is not served.
const ASSETS: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];

/// Files of ours.
const OWN: [(&str, &str, &str); 3] = [
    ("start.js", "text/javascript; charset=utf-8", START),
    ("mailed-link.js", "text/javascript; charset=utf-8", mailed_link::SCRIPT),
    ("mailed-link.css", "text/css; charset=utf-8", mailed_link::STYLE),
];

/// The page.
pub(super) fn html(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{} – API reference</title><link rel=icon href=\"docs/favicon-32x32.png\">\
         <link rel=stylesheet href=\"docs/swagger-ui.css\"></head>\
         <body><div id=reference></div><script src=\"docs/swagger-ui-bundle.js\"></script>\
         <script src=\"docs/start.js\"></script></body></html>",
        Escaped(title)
    )
}

/// A part of the page.
///
/// # Errors
/// `asset_missing`.
pub(super) fn asset(name: &str, headers: &HeaderMap) -> Result<Response> {
    if let Some((_, kind, text)) = OWN.iter().find(|it| it.0 == name) {
        return Ok(([(header::CONTENT_TYPE, *kind)], *text).into_response());
    }
    let known = ASSETS.contains(&name);
    let file =
        if known { utoipa_swagger_ui::serve(name, Arc::new(Config::default())) } else { Ok(None) };
    let Some(file) = file.map_err(|it| Failure::internal(it.to_string()))? else {
        return Err(Failure::missing("asset_missing", "Not Found"));
    };
    let mut bytes = file.bytes.into_owned();
    let packed = file.gzpipped && accepts_gzip(headers);
    if file.gzpipped && !packed {
        let mut plain = Vec::new();
        GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(Failure::internal)?;
        bytes = plain;
    }
    let mut response = Body::from(bytes).into_response();
    let set = response.headers_mut();
    if let Ok(kind) = file.content_type.parse() {
        set.insert(header::CONTENT_TYPE, kind);
    }
    set.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=86400"));
    // The edge says so itself about what it could have compressed.
    if packed {
        set.insert(header::VARY, http::HeaderValue::from_static("accept-encoding"));
        set.insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
