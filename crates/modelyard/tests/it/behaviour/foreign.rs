//! Pages in a browser on this machine, which may send requests to wherever the machine may.

use http::Method;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, run};
use serde_json::json;

use crate::support::{assert_problem, service, settings, start, stored};

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
fn behind_keys_or_on_a_network_a_service_may_be_called_anything() {
    run(async {
        for keys in [true, false] {
            let database = TestDatabase::sqlite().await;
            let mut settings = settings(&database);
            if keys {
                settings.auth.api_keys = vec!["sesame".to_owned()];
            } else {
                settings.server.host = "0.0.0.0".to_owned();
            }
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
