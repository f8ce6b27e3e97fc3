//! What every answer tells a browser, whatever it answers.

use http::Method;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, run};
use serde_json::json;

use crate::support::{service, settings, start};

/// On every answer, with these values.
const ALWAYS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
];

#[track_caller]
fn assert_protected(answer: &TestResponse, what: &str) {
    for (name, value) in ALWAYS {
        assert_eq!(answer.header(name), Some(value), "{what}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    let permissions = answer.header("permissions-policy").unwrap();
    assert!(permissions.contains("camera=()") && !permissions.contains('*'), "{what}");
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{what}");
    assert!(answer.header("cache-control").is_some(), "{what}");
}

#[test]
fn every_answer_is_protected() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.auth.api_keys = vec!["sesame".to_owned()];
        let (server, stranger) = start(service("behaviour"), settings).await;
        let client = stranger.clone().with_header("x-api-key", "sesame");
        let get = async |client: &TestClient, path: &str| client.get(path).await;
        for path in [
            "/",
            "/docs",
            "/docs/start.js",
            "/docs/swagger-ui.css",
            "/redoc",
            "/openapi.json",
            "/health",
            "/metrics",
            "/api/v1/info",
            "/api/v1/configs",
            "/api/v1/nothing",
            "/api/v1/configs/nope",
            "/api/v1/configs?limit=x",
            "/services/behaviour/health",
        ] {
            assert_protected(&get(&client, path).await, path);
        }
        let turned_away = get(&stranger, "/api/v1/configs").await.expect(401);
        assert_protected(&turned_away, "401");
        assert_eq!(turned_away.header("cache-control"), Some("no-store"));
        for (method, status) in [(Method::PUT, 405), (Method::OPTIONS, 405)] {
            let answer = client.request(method.clone(), "/api/v1/info").send().await;
            assert_protected(&answer.expect(status), method.as_str());
        }
        // Nothing of this is TLS.
        let plain = get(&client, "/api/v1/info").await;
        assert_eq!(plain.header("strict-transport-security"), None);

        // What has a tag may be kept by whoever asks each time; the rest by nobody.
        let made = client.post("/api/v1/configs", &json!({"name": "a", "data": {}})).await;
        let made = made.expect(201);
        assert_eq!(made.header("cache-control"), Some("private, no-cache"));
        let path = format!("/api/v1/configs/{}", made.body["id"].as_str().unwrap());
        let request = client.request(Method::GET, &path);
        let kept = request.header("if-none-match", made.header("etag").unwrap());
        let kept = kept.send().await.expect(304);
        assert_eq!(kept.header("cache-control"), Some("private, no-cache"));
        assert_eq!(get(&client, "/metrics").await.header("cache-control"), Some("no-store"));
        server.stop().await;
    });
}

#[test]
fn whoever_is_told_an_address_with_tls_is_to_stay_there() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.public_url = Some("https://models.example.org".to_owned());
        let (server, client) = start(service("behaviour"), settings).await;
        for path in ["/health", "/docs", "/api/v1/nothing"] {
            let answer = client.get(path).await;
            let transport = answer.header("strict-transport-security").unwrap();
            assert!(transport.starts_with("max-age=63072000"), "{transport}");
        }
        server.stop().await;
    });
}

#[test]
fn the_pages_keep_to_their_policy() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let page = client.get("/docs").await.expect(200);
        let policy = page.header("content-security-policy").unwrap().to_owned();
        for needed in ["script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
            assert!(policy.contains(needed), "{policy}");
        }
        let html = page.text();
        // Whatever is written into the page would not be run, and not be drawn.
        for inline in ["<style", " style=", "javascript:", " onload=", " onclick="] {
            assert!(!html.contains(inline), "{inline} in {html}");
        }
        let mut scripts = html.split("<script").skip(1);
        assert!(scripts.all(|it| it.starts_with(" src=\"docs/")), "{html}");
        // The reference gives styles to elements one property at a time, which no policy forbids.
        let bundle = client.get("/docs/swagger-ui-bundle.js").await.expect(200).text();
        for forbidden in ["createElement(\"style\")", "setAttribute(\"style\"", "insertRule("] {
            assert!(!bundle.contains(forbidden), "the reference needs {forbidden}");
        }
        server.stop().await;
    });
}
