//! Several changes in one request.

use std::path::PathBuf;

use http::Method;
use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use super::content::{blobs, files};
use super::{config, create, ids, start};

/// The body of an item by its name.
type Make = fn(&str) -> Value;

/// Collections whose items clients make, and the body of one.
const MADE: [(&str, Make); 3] = [
    ("/api/v1/configs", config),
    ("/api/v1/artifacts", |name| json!({"data": {"name": name}, "tags": [name]})),
    ("/api/v1/tasks", |name| json!({"command": name, "task_type": "python"})),
];

const NOBODY: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

async fn change(client: &TestClient, path: &str, atomic: bool, operations: &Value) -> Value {
    let body = json!({"atomic": atomic, "operations": operations});
    client.post(&format!("{path}/$bulk"), &body).await.expect(200).body
}

fn statuses(outcomes: &Value) -> Vec<u64> {
    let results = outcomes["results"].as_array().unwrap();
    results.iter().map(|it| it["status"].as_u64().unwrap()).collect()
}

on_both_databases! {
    async fn each_operation_has_a_result_of_its_own(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in MADE {
            let old = create(&client, path, &body("old")).await;
            let gone = create(&client, path, &body("gone")).await;
            let outcomes = change(&client, path, false, &json!([
                {"op": "create", "body": body("new")},
                {"op": "update", "id": old, "body": body("changed")},
                {"op": "update", "id": NOBODY, "body": body("nobody")},
                {"op": "delete", "id": gone},
                {"op": "delete", "id": gone},
            ])).await;
            assert_eq!(statuses(&outcomes), [201, 200, 404, 204, 404], "{path} {outcomes}");
            assert_eq!(outcomes["applied"], true);
            let results = &outcomes["results"];
            let new = results[0]["body"]["id"].as_str().unwrap();
            assert_eq!(ids(&client.get(path).await), [old.as_str(), new], "{path}");
            let one = client.get(&format!("{path}/{old}")).await.expect(200).body;
            assert_eq!(one, results[1]["body"], "{path}");
            assert!(one.to_string().contains("changed"), "{path} {one}");
            let error = &results[2]["error"];
            assert_eq!(error["status"], 404, "{path} {error}");
            assert!(error["code"].as_str().unwrap().ends_with("_missing"), "{path} {error}");
            assert!(error["detail"].as_str().unwrap().contains(NOBODY), "{path} {error}");
            assert_eq!(results[3].as_object().unwrap().len(), 1, "{path}: no body, no error");
        }
        server.stop().await;
    }

    async fn all_or_nothing_is_nothing_after_one_failure(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in MADE {
            let old = create(&client, path, &body("old")).await;
            let gone = create(&client, path, &body("gone")).await;
            let before = client.get(path).await.expect(200).body;
            let mut operations = json!([
                {"op": "create", "body": body("new")},
                {"op": "update", "id": old, "body": body("changed")},
                {"op": "delete", "id": gone},
                {"op": "delete", "id": NOBODY},
                {"op": "create", "body": body("after")},
            ]);
            let outcomes = change(&client, path, true, &operations).await;
            assert_eq!(outcomes["applied"], false, "{path}");
            assert_eq!(statuses(&outcomes), [424, 424, 424, 404, 424], "{path} {outcomes}");
            assert_eq!(outcomes["results"][0]["error"]["code"], "undone");
            assert_eq!(client.get(path).await.expect(200).body, before, "{path}");

            operations.as_array_mut().unwrap().remove(3);
            let outcomes = change(&client, path, true, &operations).await;
            assert_eq!(outcomes["applied"], true, "{path}");
            assert_eq!(statuses(&outcomes), [201, 200, 204, 201], "{path} {outcomes}");
            assert_eq!(ids(&client.get(path).await).len(), 3, "{path}");
        }
        server.stop().await;
    }

    async fn a_taken_id_fails_its_operation_only(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in MADE {
            let mut taken = body("first");
            taken["id"] = NOBODY.into();
            let create = json!({"op": "create", "body": taken});
            let outcomes = change(&client, path, false, &json!([create, create, create])).await;
            assert_eq!(statuses(&outcomes), [201, 409, 409], "{path} {outcomes}");
            let outcomes = change(&client, path, true, &json!([create])).await;
            assert_eq!(statuses(&outcomes), [409], "{path} {outcomes}");
            let both = json!([{"op": "delete", "id": NOBODY}, create]);
            let outcomes = change(&client, path, true, &both).await;
            assert_eq!(statuses(&outcomes), [204, 201], "{path} {outcomes}");
        }
        server.stop().await;
    }

    async fn an_operation_that_cannot_be_read_has_a_result_of_its_own(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in MADE {
            let old = create(&client, path, &body("old")).await;
            let operations = json!([
                {"op": "rename"},
                {"op": "create", "body": body("new")},
                {"op": "update", "id": "7"},
                7,
                {"op": "delete", "id": old},
            ]);
            let outcomes = change(&client, path, false, &operations).await;
            assert_eq!(statuses(&outcomes), [422, 201, 422, 422, 204], "{path} {outcomes}");
            assert_eq!(outcomes["applied"], true, "{path}");
            assert_eq!(ids(&client.get(path).await).len(), 1, "{path}");
            for (index, places) in [
                (0, vec![json!(["body", "operations", 0, "op"])]),
                (2, vec![
                    json!(["body", "operations", 2, "id"]),
                    json!(["body", "operations", 2, "body"]),
                ]),
                (3, vec![json!(["body", "operations", 3])]),
            ] {
                let error = &outcomes["results"][index]["error"];
                assert_eq!(error["code"], "validation_failed", "{path} {error}");
                let errors = error["errors"].as_array().unwrap();
                let found: Vec<&Value> = errors.iter().map(|it| &it["loc"]).collect();
                assert_eq!(found, places.iter().collect::<Vec<_>>(), "{path}");
            }
        }
        server.stop().await;
    }

    async fn integers_that_are_not_kept_are_refused_where_they_are(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let with = |number: &str| format!(r#"{{"data": {{"n": [{number}]}}}}"#);
        let long = "123456789012345678901234567890";
        for (kept, number) in [(true, "18446744073709551615"), (true, "1.5e300"), (false, long)] {
            let send = async |path: &str, body: String| {
                let request = client.request(Method::POST, path);
                request.header("content-type", "application/json").body(body).send().await
            };
            let answer = send("/api/v1/artifacts", with(number)).await;
            if kept {
                let found = answer.expect(201).body["data"]["n"][0].clone();
                assert_eq!(found, serde_json::from_str::<Value>(number).unwrap());
                continue;
            }
            let errors = answer.expect(422).body["errors"].clone();
            assert_eq!(errors, json!([{"type": "int_parsing_size", "input": long,
                "loc": ["body", "data", "n", 0],
                "msg": "Unable to parse input string as an integer, exceeded maximum size"}]));
            let operations = [with(number), with("1")].map(|it| format!(r#"{{"op": "create", "body": {it}}}"#));
            let bulk = format!(r#"{{"operations": [{}]}}"#, operations.join(","));
            let outcomes = send("/api/v1/artifacts/$bulk", bulk).await.expect(200).body;
            assert_eq!(statuses(&outcomes), [422, 201], "{outcomes}");
            let frame = format!(r#"{{"config_id": "{NOBODY}", "data": {{"columns": ["a"], "data": [[1], [{number}]]}}}}"#);
            let refused = send("/api/v1/ml/$train", frame).await.expect(422).body;
            assert_eq!(refused["errors"][0]["loc"], json!(["body", "data", "data", 1, 0]), "{refused}");
        }
        server.stop().await;
    }

    async fn an_answer_to_many_operations_stays_small(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let tags: Vec<u32> = (0..200).collect();
        let wrong = json!({"op": "create", "body": {"name": "a", "data": {}, "tags": tags}});
        let many: Vec<Value> = (0..1000).map(|_| wrong.clone()).collect();
        let outcomes = change(&client, "/api/v1/configs", false, &json!(many)).await;
        let results = outcomes["results"].as_array().unwrap();
        let errors = |index: usize| results[index]["error"]["errors"].as_array().unwrap().len();
        assert_eq!((errors(0), errors(9), errors(10), errors(999)), (100, 100, 1, 1));
        assert_eq!(results[0]["error"]["more_errors"], true);
        assert_eq!(results[999]["error"]["more_errors"], true);
        server.stop().await;
    }

    async fn what_cannot_be_read_stops_all_or_nothing(database: TestDatabase) {
        let (server, client) = start(&database).await;
        for (path, body) in MADE {
            let bulk = format!("{path}/$bulk");
            let good = json!({"op": "create", "body": body("good")});
            let bad = json!([
                good, {"op": "rename"}, {"op": "create"}, {"op": "delete", "id": "7"}, {"op": "update"},
            ]);
            let refused = client.post(&bulk, &json!({"atomic": true, "operations": bad})).await;
            let errors = refused.clone().expect(422).body["errors"].clone();
            let places: Vec<String> =
                errors.as_array().unwrap().iter().map(|it| it["loc"].to_string()).collect();
            for place in [
                r#"["body","operations",1,"op"]"#,
                r#"["body","operations",2,"body"]"#,
                r#"["body","operations",3,"id"]"#,
                r#"["body","operations",4,"id"]"#,
                r#"["body","operations",4,"body"]"#,
            ] {
                assert!(places.iter().any(|it| it == place), "{path}: {place} not in {places:?}");
            }
            // Nor can anything be done where nobody knows what.
            let many: Vec<Value> = (0..1001).map(|_| good.clone()).collect();
            for (envelope, kind) in [
                (json!({"operations": many}), "too_long"),
                (json!({"operations": {"0": good}}), "list_type"),
                (json!({"atomic": "perhaps", "operations": [good]}), "bool_parsing"),
                (json!({}), "missing"),
                (json!([good]), "model_attributes_type"),
            ] {
                let refused = client.post(&bulk, &envelope).await.expect(422).body;
                assert_eq!(refused["errors"][0]["type"], kind, "{path} {refused}");
                assert_eq!(refused["errors"].as_array().unwrap().len(), 1, "{path} {refused}");
            }
            assert_eq!(client.get(path).await.body, json!([]), "{path}");
            assert_eq!(change(&client, path, true, &json!([])).await["applied"], true);
        }
        server.stop().await;
    }

    async fn jobs_are_only_deleted(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let task = json!({"command": "echo", "task_type": "python"});
        let task = create(&client, "/api/v1/tasks", &task).await;
        let mut jobs = Vec::new();
        for _ in 0..3 {
            let execute = format!("/api/v1/tasks/{task}/$execute");
            let answer = client.post(&execute, &json!(null)).await.expect(202);
            jobs.push(answer.body["job_id"].as_str().unwrap().to_owned());
        }
        let path = "/api/v1/jobs";
        let delete = |id: &str| json!({"op": "delete", "id": id});
        let operations = json!([delete(&jobs[0]), delete(NOBODY), delete(&jobs[1])]);
        let outcomes = change(&client, path, true, &operations).await;
        assert_eq!(statuses(&outcomes), [424, 404, 424], "{outcomes}");
        assert_eq!(ids(&client.get(path).await).len(), 3);
        let outcomes = change(&client, path, false, &operations).await;
        assert_eq!(statuses(&outcomes), [204, 404, 204], "{outcomes}");
        assert_eq!(ids(&client.get(path).await), [jobs[2].as_str()]);
        let outcomes = change(&client, path, true, &json!([delete(&jobs[2])])).await;
        assert_eq!(statuses(&outcomes), [204], "{outcomes}");
        let create = json!([{"op": "create", "body": {}}]);
        let outcomes = change(&client, path, false, &create).await;
        assert_eq!(statuses(&outcomes), [422], "{outcomes}");
        let message = &outcomes["results"][0]["error"]["errors"][0]["msg"];
        assert_eq!(message, "Jobs can only be deleted");
        let create = json!({"atomic": true, "operations": create});
        client.post("/api/v1/jobs/$bulk", &create).await.expect(422);
        server.stop().await;
    }

    async fn what_was_undone_leaves_no_content_behind(database: TestDatabase) {
        let (server, client) = start(&database).await;
        // Too long for its row, so it becomes an object before the transaction begins.
        let large = |letter: &str| json!({"data": {"content": letter.repeat(50_000)}});
        let operations = json!([
            {"op": "create", "body": large("a")},
            {"op": "delete", "id": NOBODY},
            {"op": "create", "body": large("b")},
        ]);
        let outcomes = change(&client, "/api/v1/artifacts", true, &operations).await;
        assert_eq!(statuses(&outcomes), [424, 404, 424]);
        let refused = json!({"data": {"content": "c".repeat(50_000)}, "parent_id": NOBODY});
        client.post("/api/v1/artifacts", &refused).await.expect(409);
        assert_eq!(files(&blobs(&database)), Vec::<PathBuf>::new());
        server.stop().await;
    }
}
