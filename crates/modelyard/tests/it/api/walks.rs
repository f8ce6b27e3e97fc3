//! Walking through lists, by page and by cursor, while others add to them.

use std::collections::HashSet;

use http::Method;
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use super::lists::{Collection, collections};
use super::{config, create, ids, items, start};

/// Adds an item to a collection; those of jobs are executions of a task.
async fn add(client: &TestClient, path: &str, number: usize) {
    match path {
        "/api/v1/configs" => {
            create(client, path, &config(&format!("config {}", number % 3))).await;
        }
        "/api/v1/artifacts" => {
            create(client, path, &json!({"data": number})).await;
        }
        "/api/v1/tasks" => {
            let body = json!({"command": format!("echo {}", number % 3), "enabled": number < 3});
            create(client, path, &body).await;
        }
        _ => {
            let task = json!({"command": "echo", "task_type": "python"});
            let id = create(client, "/api/v1/tasks", &task).await;
            client.post(&format!("/api/v1/tasks/{id}/$execute"), &json!(null)).await.expect(202);
        }
    }
}

on_both_databases! {
    async fn a_walk_meets_every_item_once_while_others_are_added(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for Collection { path, fields } in collections() {
            for number in 0..7 {
                add(&client, path, number).await;
            }
            let sortable: Vec<&str> =
                fields.fields.iter().filter(|it| it.sortable).map(|it| it.name).collect();
            // What may change while it is walked by is nobody's order to walk in.
            for (number, key) in sortable.iter().filter(|it| **it != "status").enumerate() {
                let direction = ["asc", "desc"][number % 2];
                let before = ids(&client.get(path).await.expect(200));
                let (mut met, mut cursor) = (Vec::new(), String::new());
                loop {
                    let query = format!("{path}?sort={key}:{direction}&limit=3&cursor={cursor}");
                    let answer = client.get(&query).await.expect(200);
                    let keys: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
                    assert_eq!(keys, ["items", "next"]);
                    met.extend(ids(&answer));
                    if met.len() < 10 {
                        add(&client, path, met.len()).await;
                    }
                    assert!(met.len() < 100, "{path} by {key} does not end");
                    match answer.body["next"].as_str() {
                        // Ascending by age, what is added is met at the end, so the walk stops when
                        // it has met what was there.
                        Some(_) if before.iter().all(|it| met.contains(it)) => break,
                        Some(next) => cursor = next.to_owned(),
                        None => break,
                    }
                }
                let distinct: HashSet<&String> = met.iter().collect();
                assert_eq!(distinct.len(), met.len(), "{path} by {key}: {met:?}");
                assert!(before.iter().all(|it| distinct.contains(it)), "{path} by {key}");
            }
        }
        server.stop().await;
    }

    async fn the_end_of_a_walk_is_said_with_the_last_item(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let path = "/api/v1/configs";
        for number in 0..4 {
            add(&client, path, number).await;
        }
        let first = client.get(&format!("{path}?limit=2&name[ne]=nothing")).await.expect(200);
        let next = first.body["next"].as_str().unwrap();
        let last = client.get(&format!("{path}?limit=2&name[ne]=nothing&cursor={next}")).await;
        assert_eq!(last.body["next"], Value::Null);
        let all = ids(&client.get(path).await);
        assert_eq!([ids(&first), ids(&last)].concat(), all);
        // A cursor belongs to an order.
        let refused = client.get(&format!("{path}?sort=name&cursor={next}")).await.expect(400);
        assert_eq!(refused.body["code"], "cursor_invalid");
        client.get(&format!("{path}?cursor=gibberish")).await.expect(400);
        let empty = client.get(&format!("{path}?limit=5&name=nobody")).await.expect(200);
        assert_eq!(empty.body, json!({"items": [], "next": null}));
        server.stop().await;
    }

    async fn pages_are_those_of_the_contract(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for Collection { path, .. } in collections() {
            for number in 0..5 {
                add(&client, path, number).await;
            }
            let all = ids(&client.get(path).await.expect(200));
            let mut paged = Vec::new();
            for page in 1..=3 {
                let answer = client.get(&format!("{path}?page={page}&size=2")).await.expect(200);
                let text = answer.text();
                assert!(text.starts_with("{\"items\":["), "{text}");
                let end = format!("],\"total\":{},\"page\":{page},\"size\":2,\"pages\":", all.len());
                assert!(text.contains(&end), "{text}");
                paged.extend(ids(&answer));
            }
            assert_eq!(paged[..], all[..paged.len()], "{path}");
            let beyond = client.get(&format!("{path}?page=99&size=2")).await.expect(200);
            assert_eq!(items(&beyond), Vec::<Value>::new());
            assert_eq!(beyond.body["total"], all.len());
        }
        let far = "/api/v1/configs?page=9223372036854775807&size=100";
        let far = client.request(Method::GET, far).send().await.expect(200);
        assert_eq!(items(&far), Vec::<Value>::new());
        server.stop().await;
    }
}
