//! `/`, `/docs`, `/redoc`, `/openapi.json`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use modelyard_kernel::Result;
use modelyard_kernel::reply::Conditions;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::card::{CSS, Card, base};
use super::html::{self, Escaped};
use super::{Document, docs, mailed_link};

#[derive(Clone)]
pub(super) struct Pages {
    title: Arc<str>,
    card: Arc<str>,
    document: Arc<Document>,
}

impl Pages {
    pub(super) fn new(card: &Card, document: Document) -> Self {
        let title = card.title.as_str().into();
        Self { title, card: card.body().into(), document: document.into() }
    }
}

pub(super) fn routes() -> OpenApiRouter<Pages> {
    OpenApiRouter::new()
        .routes(routes!(get_landing_page))
        .routes(routes!(get_docs))
        .routes(routes!(get_redoc))
        .routes(routes!(get_openapi))
        .routes(routes!(get_reset_password_page))
        .routes(routes!(get_accept_invitation_page))
        .route("/docs/{asset}", get(get_docs_asset))
}

/// The service's page
#[utoipa::path(get, path = "/", tag = "pages",
    responses((status = 200, content_type = "text/html; charset=utf-8", body = String)))]
async fn get_landing_page(State(pages): State<Pages>, OriginalUri(uri): OriginalUri) -> Response {
    page(&pages.title, &pages.card, &uri)
}

/// The reference of the API
#[utoipa::path(get, path = "/docs", tag = "pages",
    responses((status = 200, content_type = "text/html; charset=utf-8", body = String)))]
async fn get_docs(State(pages): State<Pages>) -> Response {
    with_policy(Html(docs::html(&pages.title)).into_response(), docs::POLICY)
}

/// The reference of the API, at an address that clients of the contract may have kept
#[utoipa::path(get, path = "/redoc", tag = "pages", responses((status = 307)))]
async fn get_redoc() -> Redirect {
    Redirect::temporary("docs")
}

/// The OpenAPI document
#[utoipa::path(get, path = "/openapi.json", tag = "pages",
    responses((status = 200, content_type = "application/json", body = Object)))]
async fn get_openapi(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let Document { etag, bytes } = &*pages.document;
    let mut response = if Conditions::of(&headers).is_fresh(etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], Body::from(bytes.clone())).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Where the link of a mail leads that sets a new password
#[utoipa::path(get, path = "/reset-password", tag = "pages",
    responses((status = 200, content_type = "text/html; charset=utf-8", body = String)))]
async fn get_reset_password_page() -> Response {
    mailed_link::RESET.page("./")
}

/// Where the link of an invitation leads
#[utoipa::path(get, path = "/accept-invitation", tag = "pages",
    responses((status = 200, content_type = "text/html; charset=utf-8", body = String)))]
async fn get_accept_invitation_page() -> Response {
    mailed_link::INVITATION.page("./")
}

/// A part of the reference or of a page, which is no operation of the API.
async fn get_docs_asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response> {
    docs::asset(&name, &headers)
}

/// A page of ours.
pub(super) fn page(title: &str, body: &str, uri: &Uri) -> Response {
    let html = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><base href=\"{}\"><style>{CSS}</style></head>\
         <body><main>{body}</main></body></html>",
        Escaped(title),
        Escaped(&base(uri)),
    );
    with_policy(Html(html).into_response(), &html::policy(CSS))
}

/// Adds what a page may do; the edge adds what holds for every answer.
pub(super) fn with_policy(mut response: Response, policy: &str) -> Response {
    if let Ok(policy) = HeaderValue::from_str(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
