use ::http::{Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use modelyard_ml::info::ServiceInfo;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

fn pages(info: &Value) -> Router {
    let about = About { config: json!({}), info: info.clone(), key_header: None };
    with_pages(Router::new(), OpenApi::default(), &about).unwrap()
}

async fn get(routes: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).unwrap();
    routes.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_card_is_shown_and_cannot_run_anything() {
    let mut info = ServiceInfo::new("peer-model", "<script>alert(1)</script>");
    info.model_metadata.author = Some("O'Hara & \"Co\"".to_owned());
    info.model_metadata.repository_url = Some("https://example.com/model".parse().unwrap());
    let mut info = serde_json::to_value(info).unwrap();
    info["model_metadata"]["documentation_url"] = "javascript:alert(1)".into();
    let response = get(&pages(&info), "/").await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let html = text(response).await;
    assert!(html.contains("O&#39;Hara &amp; &quot;Co&quot;"), "{html}");
    assert!(html.contains("href=\"https://example.com/model\""), "{html}");
    assert!(!html.contains("<script") && !html.contains("href=\"javascript:"), "{html}");
    assert!(html.contains("<a href=\"docs\">"), "{html}");
    assert!(!html.contains("api/v1/configs"), "no link to what is not there: {html}");
}

#[tokio::test]
async fn links_are_right_wherever_the_page_is() {
    let pages = pages(&json!({}));
    let nested = pages.clone().nest("/services/a", pages);
    for (path, base) in [("/", "./"), ("/services/a", "a/")] {
        let html = text(get(&nested, path).await).await;
        assert!(html.contains(&format!("<base href=\"{base}\">")), "{path}: {html}");
    }
}

#[tokio::test]
async fn the_reference_is_complete_without_a_network() {
    let pages = pages(&json!({"display_name": "Peer"}));
    let html = text(get(&pages, "/docs").await).await;
    assert!(!html.contains("//"), "{html}");
    let parts = ["swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"];
    for name in parts {
        assert!(html.contains(&format!("\"docs/{name}\"")), "{html}");
        let response = get(&pages, &format!("/docs/{name}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        assert!(response.headers().get("content-encoding").is_none());
        assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    let packed = Request::get("/docs/swagger-ui-bundle.js").header("accept-encoding", "gzip");
    let response = pages.clone().oneshot(packed.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(get(&pages, "/docs/index.html").await.status(), StatusCode::NOT_FOUND);
    let response = get(&pages, "/redoc").await;
    assert_eq!(response.headers()["location"], "docs");
}

#[tokio::test]
async fn the_document_is_not_sent_again_to_who_has_it() {
    let pages = pages(&json!({}));
    let response = get(&pages, "/openapi.json").await;
    let etag = response.headers()["etag"].clone();
    let document: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(document["servers"], json!([{"url": ".", "description": "This service"}]));
    for path in ["/", "/docs", "/redoc", "/openapi.json"] {
        assert!(document["paths"].get(path).is_some(), "{path} is missing in {document}");
    }
    let again = Request::get("/openapi.json").header("if-none-match", etag);
    let response = pages.clone().oneshot(again.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn several_services_are_listed_at_the_front() {
    let front = front(&[("a", "A & B")]);
    let html = text(get(&front, "/").await).await;
    assert!(html.contains("<a href=\"services/a\">A &amp; B</a>"), "{html}");
    for path in ["/reset-password", "/accept-invitation"] {
        let html = text(get(&front, path).await).await;
        assert!(html.contains("<base href=\"services/a/\">"), "{path}: {html}");
    }
}
