//! Pages in a browser on this machine, which may send requests to wherever the machine may.

use http::Method;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, run};
use serde_json::json;

use crate::support::{assert_problem, assert_refused, service, settings, start, stored};

const CONSOLE: &str = "https://console.example.org";

/// A new config, asked for with these headers.
async fn create(client: &TestClient, headers: &[(&str, &str)]) -> TestResponse {
    let mut request = client.request(Method::POST, "/api/v1/configs");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.json(&json!({"name": "a", "data": {}})).send().await
}

#[track_caller]
fn assert_kept_out(answer: &TestResponse, code: &str) {
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (403, &json!(code)));
    assert_problem(answer, &code);
}

#[test]
fn a_name_of_somebody_else_does_not_lead_to_an_open_service() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.server.public_url = Some("https://models.example.org".to_owned());
        let (server, client) = start(service("behaviour"), settings).await;
        for path in
            ["/api/v1/configs", "/health", "/docs", "/metrics", "/services/behaviour/health"]
        {
            let port = server.address().port();
            for own in ["localhost", "127.0.0.1", "[::1]", "models.example.org"] {
                let host = format!("{own}:{port}");
                let answer = client.request(Method::GET, path).header("host", &host).send().await;
                assert!(answer.status.as_u16() < 400, "{host} {path}: {}", answer.status);
            }
            let rebound = format!("rebound.example:{port}");
            let answer = client.request(Method::GET, path).header("host", &rebound).send().await;
            assert_kept_out(&answer, "host_unknown");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains("server.public_url"), "{detail}");
        }
        server.stop().await;
    });
}

#[test]
fn behind_keys_a_service_may_be_called_anything() {
    run(async {
        for host in ["127.0.0.1", "0.0.0.0"] {
            let database = TestDatabase::sqlite().await;
            let mut settings = settings(&database);
            settings.auth.api_keys = vec!["sesame".to_owned()];
            settings.server.host = host.to_owned();
            let (server, _) = start(service("behaviour"), settings).await;
            let port = server.address().port();
            let client = TestClient::new(format!("http://127.0.0.1:{port}"))
                .with_header("x-api-key", "sesame")
                .with_header("host", &format!("model:{port}"));
            drop(client.get("/api/v1/configs").await.expect(200));
            create(&client, &[]).await.expect(201);
            assert_kept_out(
                &create(&client, &[("origin", "http://evil.example")]).await,
                "origin_foreign",
            );
            server.stop().await;
        }
    });
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let before = stored(&database).await;
        for foreign in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")],
            &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert_kept_out(&create(&client, foreign).await, "origin_foreign");
            let mut upload = client.request(Method::POST, "/api/v1/artifacts/$upload");
            for (name, value) in foreign {
                upload = upload.header(name, value);
            }
            assert_kept_out(&upload.body(vec![1; 100_000]).send().await, "origin_foreign");
        }
        assert_eq!(stored(&database).await, before);

        // The page at `/docs`, and programs that are no browsers.
        let own = client.base().to_owned();
        create(&client, &[("origin", &own), ("sec-fetch-site", "same-origin")]).await.expect(201);
        create(&client, &[]).await.expect(201);
        let read =
            client.request(Method::GET, "/api/v1/configs").header("origin", "http://a.example");
        read.send().await.expect(200);
        server.stop().await;
    });
}

/// What a browser asks before it lets a page of `origin` send a request.
async fn preflight(client: &TestClient, origin: &str, path: &str) -> TestResponse {
    let request = client.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "content-type,x-api-key").send().await
}

#[test]
fn a_page_that_the_operator_lists_may_ask_and_read() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let mut settings = settings(&database);
        settings.auth.api_keys = vec!["sesame".to_owned()];
        settings.server.cors_origins = vec![CONSOLE.to_owned()];
        let (server, stranger) = start(service("behaviour"), settings).await;
        let client = stranger.clone().with_header("x-api-key", "sesame");

        // Before there is a key.
        let asked = preflight(&stranger, CONSOLE, "/api/v1/configs").await.expect(204);
        assert_eq!(asked.header("access-control-allow-origin"), Some(CONSOLE));
        assert_eq!(asked.header("access-control-allow-headers"), Some("content-type,x-api-key"));
        assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
        assert!(asked.header("vary").unwrap().contains("origin"));
        assert!(asked.header("x-request-id").is_some());

        let origin = [("origin", CONSOLE), ("sec-fetch-site", "cross-site")];
        let made = create(&client, &origin).await.expect(201);
        assert_eq!(made.header("access-control-allow-origin"), Some(CONSOLE));
        assert_eq!(made.header("access-control-allow-credentials"), None);
        assert_eq!(made.header("cross-origin-resource-policy"), None);
        assert!(made.header("access-control-expose-headers").unwrap().contains("location"));
        // It reads why it was refused, too.
        let refused = create(&stranger, &origin).await.expect(401);
        assert_refused(&refused, &"without a key");
        assert_eq!(refused.header("access-control-allow-origin"), Some(CONSOLE));

        for foreign in [
            "https://evil.example",
            "https://console.example.org.evil.example",
            "null",
            "http://console.example.org",
        ] {
            let asked = preflight(&client, foreign, "/api/v1/configs").await.expect(405);
            let read = client.request(Method::GET, "/api/v1/configs").header("origin", foreign);
            let read = read.send().await.expect(200);
            assert_kept_out(&create(&client, &[("origin", foreign)]).await, "origin_foreign");
            for answer in [asked, read] {
                assert_eq!(answer.header("access-control-allow-origin"), None, "{foreign}");
                assert!(answer.header("vary").unwrap().contains("origin"), "{foreign}");
                assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
            }
        }
        server.stop().await;
    });
}

#[test]
fn cookies_come_along_from_pages_that_are_listed_and_never_from_all() {
    run(async {
        for (origins, credentials, allowed) in [
            (CONSOLE, true, (Some(CONSOLE), Some("true"))),
            (CONSOLE, false, (Some(CONSOLE), None)),
            ("*", false, (Some("*"), None)),
            // What the settings refuse is not done by a program either.
            ("*", true, (Some("*"), None)),
        ] {
            let database = TestDatabase::sqlite().await;
            let mut settings = settings(&database);
            settings.server.cors_origins = vec![origins.to_owned()];
            settings.server.cors_credentials = credentials;
            let (server, client) = start(service("behaviour"), settings).await;
            let read = client.request(Method::GET, "/api/v1/configs").header("origin", CONSOLE);
            let read = read.send().await.expect(200);
            let said = ["access-control-allow-origin", "access-control-allow-credentials"];
            let said = said.map(|it| read.header(it));
            assert_eq!((said[0], said[1]), allowed, "{origins} {credentials}");
            // Any page at all changes nothing where nobody needs a key.
            let status = if origins == "*" { 403 } else { 201 };
            create(&client, &[("origin", CONSOLE)]).await.expect(status);
            server.stop().await;
        }
    });
}

#[test]
fn without_a_list_nothing_is_for_pages_of_others() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let (server, client) = start(service("behaviour"), settings(&database)).await;
        let asked = preflight(&client, CONSOLE, "/api/v1/configs").await.expect(405);
        let read = client.request(Method::GET, "/api/v1/configs").header("origin", CONSOLE);
        for answer in [asked, read.send().await] {
            let names = answer.headers.keys().map(|it| it.as_str());
            let names: Vec<_> = names.filter(|it| it.starts_with("access-control")).collect();
            assert_eq!(names, Vec::<&str>::new());
        }
        server.stop().await;
    });
}
