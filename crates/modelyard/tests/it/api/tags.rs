//! Entity tags name one state of one thing: not one that was before it under the same id, and not one
//! from before it was moved.

use std::time::Duration;

use http::Method;
use modelyard_testkit::{TestClient, TestResponse, on_both_databases};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{config, create, start};

const ID: &str = "01JCSEED0000000000000PYTH1";

fn tag(answer: &TestResponse) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no tag: {}", answer.body)).to_owned()
}

async fn put(client: &TestClient, path: &str, tag: &str, body: &Value) -> TestResponse {
    client.request(Method::PUT, path).header("if-match", tag).json(body).send().await
}

async fn artifact(client: &TestClient, parent: Option<&str>) -> String {
    let body = json!({"data": {"content": 1}, "parent_id": parent});
    format!("/api/v1/artifacts/{}", create(client, "/api/v1/artifacts", &body).await)
}

fn id_in(path: &str) -> Option<&str> {
    path.rsplit('/').next()
}

on_both_databases! {
    async fn the_tag_of_what_was_deleted_does_not_come_back(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (collection, mut body) in [
            ("/api/v1/configs", config("first")),
            ("/api/v1/artifacts", json!({"data": {"x": 1}})),
            ("/api/v1/tasks", json!({"command": "echo", "task_type": "python"})),
        ] {
            body["id"] = json!(ID);
            let path = format!("{collection}/{ID}");
            let before = tag(&client.post(collection, &body).await.expect(201));
            assert_eq!(before, tag(&client.get(&path).await.expect(200)));
            client.delete(&path).await.expect(204);
            let after = tag(&client.post(collection, &body).await.expect(201));
            assert_ne!(before, after, "{collection}");
            put(&client, &path, &before, &body).await.expect(412);
            put(&client, &path, &after, &body).await.expect(200);
        }
        server.stop().await;
    }

    async fn what_moves_along_with_its_tree_is_changed(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let top = artifact(&client, None).await;
        let moved = artifact(&client, None).await;
        let child = artifact(&client, id_in(&moved)).await;
        let grandchild = artifact(&client, id_in(&child)).await;
        let mut before = Vec::new();
        for path in [&child, &grandchild, &top] {
            before.push(client.get(path).await.expect(200));
        }
        // Entities show their times to the second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let body = json!({"data": {"content": 1}, "parent_id": id_in(&top)});
        client.put(&moved, &body).await.expect(200);
        for (path, before) in [&child, &grandchild].into_iter().zip(&before) {
            let now = client.get(path).await.expect(200);
            let level = before.body["level"].as_i64().unwrap();
            assert_eq!(now.body["level"], level + 1, "{path}");
            assert_ne!(tag(&now), tag(before), "{path}");
            assert!(now.body["updated_at"].as_str() > before.body["updated_at"].as_str(), "{path}");
            let change = json!({"data": {"content": 2}});
            put(&client, path, &tag(before), &change).await.expect(412);
            put(&client, path, &tag(&now), &change).await.expect(200);
        }
        assert_eq!(tag(&client.get(&top).await), tag(&before[2]));

        // Whatever moves to the same level takes nothing along.
        let still = tag(&client.get(&grandchild).await);
        client.put(&moved, &body).await.expect(200);
        assert_eq!(tag(&client.get(&grandchild).await), still);
        server.stop().await;
    }

    async fn a_condition_that_cannot_be_read_is_not_met(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let path = format!("/api/v1/configs/{}", create(&client, "/api/v1/configs", &config("first")).await);
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        let head = format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nif-match: ");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(b"\"\xe9\"\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
        client.get(&path).await.expect(200);
        server.stop().await;
    }

    async fn a_search_for_a_long_text_is_refused(database: TestDatabase) {
        let (server, client) = start(&database).await;
        create(&client, "/api/v1/configs", &config("first")).await;
        for query in ["q", "name[contains]"] {
            let long = "a".repeat(60_000);
            let answer = client.get(&format!("/api/v1/configs?{query}={long}")).await.expect(400);
            assert_eq!(answer.body["code"], "filter_invalid", "{query}");
            let most = "a".repeat(1000);
            client.get(&format!("/api/v1/configs?{query}={most}")).await.expect(200);
        }
        server.stop().await;
    }
}
