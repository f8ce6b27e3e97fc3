//! Content of artifacts: what a list never touches, and what goes with its config.

use std::time::{Duration, Instant};

use http::Method;
use modelyard_kernel::{Blobs, Clock};
use modelyard_testkit::{TestClient, on_both_databases, scope_of};
use serde_json::{Value, json};

use crate::support::{config, ended, files, frame, start_model, stored, text, train_with, until};

const LARGE: usize = 30 << 20;

/// Bytes that do not shrink.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

async fn upload(client: &TestClient, bytes: Vec<u8>) -> Value {
    let request = client.request(Method::POST, "/api/v1/artifacts/$upload?filename=large.bin");
    request.header("content-type", "application/x-noise").body(bytes).send().await.expect(201).body
}

on_both_databases! {
    async fn nobody_takes_the_id_that_a_job_has_promised(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({"seconds": 1})).await;
        let it = train_with(&client, &id).await;
        let taken = json!({"id": it.artifact, "data": {"mine": true}});
        let refused = client.post("/api/v1/artifacts", &taken).await.expect(409);
        assert_eq!(refused.body["code"], "artifact_taken");
        let bulk = json!({"operations": [{"op": "create", "body": taken}]});
        let done = client.post("/api/v1/artifacts/$bulk", &bulk).await;
        assert!(done.body.to_string().contains("artifact_taken"), "{}", done.body);
        let record = ended(&client, &it.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        let stored = client.get(&format!("/api/v1/artifacts/{}", it.artifact)).await.expect(200);
        assert_eq!(stored.body["data"]["mine"], json!(null));
        // Any other id is free.
        let other = json!({"id": "01JCSEED000000000000000AAA", "data": {"mine": true}});
        client.post("/api/v1/artifacts", &other).await.expect(201);
        server.stop().await;
    }


    async fn lists_do_not_load_content(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let large = text(&upload(&client, noise(LARGE)).await["id"]);
        let values = vec!["some text that takes room"; 40_000];
        let json = json!({"data": {"type": "json", "metadata": {"a": 1}, "content": values}});
        let json = text(&client.post("/api/v1/artifacts", &json).await.expect(201).body["id"]);
        // Whoever looked for the content now would not find it.
        let blobs = database.dir().join("data/blobs");
        assert!(files(&blobs).len() >= 2);
        fs_err::remove_dir_all(&blobs).unwrap();

        let asked = Instant::now();
        for path in [
            "/api/v1/artifacts".to_owned(),
            "/api/v1/artifacts?page=1&size=10".to_owned(),
            "/api/v1/artifacts?limit=10".to_owned(),
            format!("/api/v1/artifacts/{large}/$tree"),
            format!("/api/v1/artifacts/{large}/$expand"),
            format!("/api/v1/artifacts/{json}/$metadata"),
            "/api/v1/artifacts/$stats".to_owned(),
        ] {
            let answer = client.get(&path).await.expect(200);
            assert!(answer.bytes.len() < 4096, "{path}: {} bytes", answer.bytes.len());
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        let lost = client.get(&format!("/api/v1/artifacts/{large}")).await;
        assert!(lost.status.is_server_error(), "{}", lost.status);
        server.stop().await;
    }

    async fn a_config_takes_its_artifacts_and_their_content_along(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let empty = stored(&database).await;
        let id = config(&client, json!({})).await;
        let submitted = train_with(&client, &id).await;
        assert_eq!(ended(&client, &submitted.job).await["status"], "completed");
        let predict = json!({
            "artifact_id": submitted.artifact,
            "historic": frame(),
            "future": frame(),
        });
        let predicted = client.post("/api/v1/ml/$predict", &predict).await.expect(202).body;
        assert_eq!(ended(&client, &text(&predicted["job_id"])).await["status"], "completed");
        client.post("/api/v1/ml/$predict", &predict).await.expect(202);
        assert_eq!(count(&stored(&database).await, "configs"), 1);
        assert_ne!(count(&stored(&database).await, "blobs WHERE refs > 0"), 0);

        for job in client.get("/api/v1/jobs").await.body.as_array().unwrap() {
            ended(&client, &text(&job["id"])).await;
            client.delete(&format!("/api/v1/jobs/{}", text(&job["id"]))).await.expect(204);
        }
        client.delete(&format!("/api/v1/configs/{id}")).await.expect(204);
        assert_eq!(stored(&database).await, empty);
        server.stop().await;

        let blobs = database.dir().join("data/blobs");
        assert!(!files(&blobs).is_empty());
        let clock = Clock::fixed("2100-01-01T00:00:00Z".parse().unwrap());
        let scope = scope_of("default", "behaviour");
        let swept = Blobs::directory(&blobs, clock).unwrap().sweep(&database.db, &scope).await;
        assert!(swept.unwrap() > 0);
        assert_eq!(files(&blobs), Vec::<String>::new());
    }

    async fn an_upload_that_breaks_off_leaves_nothing(database: TestDatabase) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (server, client) = start_model(&database).await;
        let empty = stored(&database).await;
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let head = "POST /api/v1/artifacts/$upload HTTP/1.1\r\nhost: localhost\r\n\
                    content-length: 100000000\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&noise(LARGE)).await.unwrap();
        let blobs = database.dir().join("data/blobs");
        until("something is on the disk", async || !files(&blobs).is_empty()).await;
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_400 = socket.read_to_end(&mut answer).await;
        until("nothing is on the disk", async || files(&blobs).is_empty()).await;
        assert_eq!(stored(&database).await, empty);
        client.get("/health").await.expect(200);
        server.stop().await;
    }
}

fn count(stored: &[(&'static str, i64)], of: &str) -> i64 {
    stored.iter().find(|it| it.0 == of).unwrap().1
}
