//! What goes around every answer: HEAD, compression, the request's id.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{HeaderMap, Method};
use modelyard::Server;
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use super::openapi::{document, place};
use super::{config, create, noise, service, start, upload};
use crate::support::settings;

/// The headers that two answers to the same question share.
fn lasting(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut lasting: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id" | "transfer-encoding"))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    lasting.sort();
    lasting
}

on_both_databases! {
    async fn head_is_get_without_the_body(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let known = place(&client).await;
        let document = document(&client).await;
        let paths = document["paths"].as_object().unwrap();
        let mut asked = 0;
        for (path, methods) in paths {
            if methods.get("get").is_none() {
                continue;
            }
            for accepted in ["identity", "gzip"] {
                let nonsense = path.contains('{').then(|| path.replace("{id}", "nonsense"));
                for path in nonsense.into_iter().chain([known.path_of(path)]) {
                    let request = |method| {
                        client.request(method, &path).header("accept-encoding", accepted).open()
                    };
                    let (get, head) = (request(Method::GET).await, request(Method::HEAD).await);
                    assert_eq!(head.status, get.status, "{path}");
                    let (mut expected, mut found) = (lasting(&get.headers), lasting(&head.headers));
                    if path.starts_with("/api/v1/audit") {
                        // Whoever looks at it adds to it.
                        expected.retain(|it| !matches!(&*it.0, "content-length" | "etag"));
                        found.retain(|it| !matches!(&*it.0, "content-length" | "etag"));
                    }
                    if path.ends_with("/metrics") || path.ends_with("/system") {
                        // They count and tell the time, so they are as long as they happen to be.
                        expected.retain(|it| it.0 != "content-length");
                        found.retain(|it| it.0 != "content-length");
                    }
                    assert_eq!(found, expected, "{path} {accepted}");
                    let mut head = head;
                    assert_eq!(head.next_bytes().await, None, "{path}");
                    asked += 1;
                }
            }
        }
        assert!(asked > 80, "{asked}");
        server.stop().await;
    }

    async fn long_answers_are_compressed_for_who_asks(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for number in 0..20 {
            create(&client, "/api/v1/configs", &config(&format!("config {number}"))).await;
        }
        let large = json!({"data": {"content": "word ".repeat(10_000)}});
        let artifact = create(&client, "/api/v1/artifacts", &large).await;
        let csv = upload(&client, "text/csv", "a,b\n".repeat(5000)).await;
        for path in ["/api/v1/configs", &format!("/api/v1/artifacts/{artifact}"), "/openapi.json", "/docs/swagger-ui.css"] {
            let plain = client.get(path).await.expect(200);
            assert_eq!(plain.header("content-encoding"), None, "{path}");
            let request = client.request(Method::GET, path).header("accept-encoding", "br, gzip;q=0.5");
            let packed = request.send().await.expect(200);
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
            assert_eq!(packed.header("vary"), Some("accept-encoding"), "{path}");
            assert!(packed.bytes.len() * 2 < plain.bytes.len(), "{path}");
            let mut unpacked = Vec::new();
            GzDecoder::new(&packed.bytes[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, plain.bytes, "{path}");
            if let Some(etag) = packed.header("etag") {
                let again = client.request(Method::GET, path).header("if-none-match", etag);
                again.send().await.expect(304);
                assert_eq!(etag.trim_start_matches("W/"), plain.header("etag").unwrap().trim_start_matches("W/"));
                assert!(etag.starts_with("W/"), "these are other bytes: {path} {etag}");
            }
        }
        // Too short, and ranges are of the bytes as they were stored.
        for path in ["/health", "/api/v1/configs/$stats", &format!("{csv}/$download")] {
            let request = client.request(Method::GET, path).header("accept-encoding", "gzip");
            assert_eq!(request.send().await.expect(200).header("content-encoding"), None, "{path}");
        }
        server.stop().await;
    }

    async fn every_answer_has_the_id_of_its_request(database: TestDatabase) {
        let mut settings = settings(&database);
        settings.server.body_limit = 10_000;
        let service = service().with_auth(["key".to_owned()]).build().unwrap();
        let server = Server::start(vec![service], settings).await.unwrap();
        let stranger = TestClient::new(format!("http://{}", server.address()));
        let client = stranger.clone().with_header("x-api-key", "key");
        let id = create(&client, "/api/v1/configs", &config("one")).await;
        let one = format!("/api/v1/configs/{id}");
        let long = json!({"name": "x".repeat(20_000), "data": {}});
        let mut met = Vec::new();
        for (method, path, body, status) in [
            (Method::GET, "/", None, 200),
            (Method::GET, "/health", None, 200),
            (Method::GET, "/redoc", None, 307),
            (Method::GET, one.as_str(), None, 200),
            (Method::HEAD, one.as_str(), None, 200),
            (Method::GET, "/api/v1/configs/nonsense", None, 400),
            (Method::GET, "/api/v1/configs/%ff", None, 400),
            (Method::GET, "/api/v1/nowhere", None, 404),
            (Method::PATCH, "/api/v1/configs", None, 405),
            (Method::POST, "/api/v1/configs", Some(&json!({})), 422),
            (Method::POST, "/api/v1/configs", Some(&long), 413),
            (Method::DELETE, one.as_str(), None, 204),
            (Method::DELETE, one.as_str(), None, 404),
        ] {
            let request = client.request(method.clone(), path).header("x-request-id", "mine");
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            let answer = request.send().await;
            assert_eq!(answer.status, status, "{method} {path} {}", answer.body);
            let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{method} {path}"));
            assert_eq!(id.len(), 26, "{id}");
            if status >= 400 {
                assert_eq!(answer.body["trace_id"], id, "{method} {path}");
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            }
            met.push(id.to_owned());
        }
        let refused = stranger.get("/api/v1/configs").await.expect(401);
        met.push(refused.header("x-request-id").unwrap().to_owned());
        let count = met.len();
        met.sort();
        met.dedup();
        assert_eq!(met.len(), count, "each has its own");
        server.stop().await;
    }
}

#[test]
fn noise_is_not_compressed() {
    let bytes = noise(1, 100_000);
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    assert!(encoder.finish().unwrap().len() > 99_000);
    assert_ne!(noise(3, 8), noise(5, 8));
    assert_eq!(Value::from(noise(3, 4)), Value::from(noise(3, 9)[..4].to_vec()));
}
