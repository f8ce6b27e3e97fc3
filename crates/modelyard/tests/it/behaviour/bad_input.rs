//! Bodies that are wrong: malformed, of wrong types, with what no database takes. Each is refused
//! in the contract's words, and nothing of it is stored.

use http::Method;
use modelyard::{ModelError, Service, ServiceInfo, functions};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use serde_json::{Value, json};

use crate::support::{
    assert_refused, config, frame, running, settings, start, start_model, stored, text, train_body,
    train_with,
};

const ID: &str = "01K72PWT05GEXK1S24AVKAZ9VE";

/// A service whose only worker is busy, so that nothing but requests changes anything.
async fn start_busy(database: &TestDatabase) -> (modelyard::Server, TestClient) {
    let info = ServiceInfo::new("behaviour", "Behaviour");
    let service = Service::builder(info)
        .runner(functions(
            |_: Value, _| std::future::pending::<Result<(), ModelError>>(),
            |_: Value, (): (), it| async move { Ok(it.future) },
        ))
        .with_shell_tasks()
        .build()
        .unwrap();
    let (server, client) = start(service, settings(database)).await;
    let id = config(&client, json!({})).await;
    let busy = train_with(&client, &id).await;
    running(&client, &busy.job).await;
    (server, client)
}

/// A body that would be accepted, where it goes.
fn bodies(config: &str, artifact: &str, task: &str) -> Vec<(Method, String, Value)> {
    let frame = json!({
        "columns": ["time_period", "location"],
        "data": [["2026-01", "north"]],
        "schema": {"fields": [{"name": "location", "type": "string", "title": "Location"}]},
    });
    let geo = json!({"type": "FeatureCollection", "features": [{
        "type": "Feature", "id": "north", "properties": {"name": "North"},
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}}]});
    let run_info = json!({"prediction_periods": 3});
    let train = json!({"config_id": config, "data": frame, "geo": geo, "run_info": run_info});
    let predict = json!({"artifact_id": artifact, "historic": frame, "future": frame, "geo": geo});
    let with_type = |body: &Value, kind: &str| {
        let mut body = body.clone();
        body["type"] = json!(kind);
        body
    };
    let new = |kind: &str| match kind {
        "configs" => json!({"name": "n", "tags": ["t"], "data": {
            "prediction_periods": 2, "additional_continuous_covariates": ["x"], "free": {"a": [1]}}}),
        "artifacts" => json!({"tags": ["t"], "parent_id": artifact, "data": {
            "type": "x", "metadata": {"status": "s"}, "content": [1, {"a": null}]}}),
        _ => {
            json!({"command": "true", "task_type": "shell", "parameters": {"a": 1}, "enabled": true})
        }
    };
    let mut all = vec![
        (Method::POST, "/api/v1/ml/$train".to_owned(), train.clone()),
        (Method::POST, "/api/v1/ml/$predict".to_owned(), predict.clone()),
        (Method::POST, "/api/v1/ml/$validate".to_owned(), with_type(&train, "train")),
        (Method::POST, "/api/v1/ml/$validate".to_owned(), with_type(&predict, "predict")),
        (
            Method::POST,
            format!("/api/v1/configs/{config}/$link-artifact"),
            json!({"artifact_id": artifact}),
        ),
        (
            Method::POST,
            format!("/api/v1/configs/{config}/$unlink-artifact"),
            json!({"artifact_id": artifact}),
        ),
        (Method::POST, format!("/api/v1/tasks/{task}/$execute"), json!({"parameters": {}})),
    ];
    for (kind, id) in [("configs", config), ("artifacts", artifact), ("tasks", task)] {
        let new = new(kind);
        all.push((Method::PUT, format!("/api/v1/{kind}/{id}"), new.clone()));
        let bulk = json!({"atomic": true, "operations": [
            {"op": "create", "body": new}, {"op": "update", "id": id, "body": new}, {"op": "delete", "id": ID}]});
        all.push((Method::POST, format!("/api/v1/{kind}/$bulk"), bulk));
        all.push((Method::POST, format!("/api/v1/{kind}"), new));
    }
    all
}

/// What is put in the place of every value.
fn wrong_values() -> Vec<Value> {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("text"),
        json!("zero \u{0} character"),
        json!("\u{feff}\u{202e}\u{fffd}😀"),
        json!("x".repeat(20_000)),
        json!([]),
        json!([null, 1, "a", [], {}]),
        json!({}),
        json!({"id": {"$ne": 1}, "": null, "\u{0}": "\u{0}"}),
        deep,
    ]
}

/// Where every value of a body is, as JSON pointers, the body itself included.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

async fn make(client: &TestClient) -> (String, String, String) {
    let config = config(client, json!({})).await;
    let artifact = json!({"data": {"type": "root", "content": [1]}});
    let artifact = client.post("/api/v1/artifacts", &artifact).await.expect(201).body;
    let task = client.post("/api/v1/tasks", &json!({"command": "true"})).await.expect(201).body;
    (config, text(&artifact["id"]), text(&task["id"]))
}

on_both_databases! {
    async fn a_wrong_value_anywhere_is_refused_or_harmless(database: TestDatabase) {
        let (server, client) = start_busy(&database).await;
        let (config, artifact, task) = make(&client).await;
        let mut refused = 0;
        for (method, path, body) in bodies(&config, &artifact, &task) {
            let mut found = Vec::new();
            places(&body, "", &mut found);
            for place in found {
                for wrong in wrong_values() {
                    let mut body = body.clone();
                    *body.pointer_mut(&place).unwrap() = wrong;
                    let before = stored(&database).await;
                    let answer = client.request(method.clone(), &path).json(&body).send().await;
                    let shown: String = body.to_string().chars().take(500).collect();
                    let what = format!("{method} {path} {place} {shown}");
                    if answer.status.is_success() {
                        undone(&answer, &what);
                        continue;
                    }
                    refused += 1;
                    assert_refused(&answer, &what);
                    assert_eq!(stored(&database).await, before, "{what}");
                }
            }
        }
        assert!(refused > 1000, "{refused}");
        server.stop().await;
    }

    async fn malformed_json_is_refused_in_the_words_of_the_contract(database: TestDatabase) {
        let (server, client) = start_busy(&database).await;
        let (config, artifact, task) = make(&client).await;
        let before = stored(&database).await;
        let deep = "[".repeat(100_000);
        let malformed: &[&[u8]] = &[
            b"", b" ", b"{", b"}", b"[", b"{\"name\"", b"{\"name\":", b"{\"name\":}", b"{'name': 1}",
            b"{\"a\":1,}", b"[1,]", b"nul", b"NaN", b"{\"a\":NaN}", b"{\"a\":Infinity}",
            b"{\"a\":-Infinity}", b"{\"a\":1e999}", b"{\"a\":01}", b"{\"a\":+1}", b"{\"a\":.5}",
            b"{\"a\":\"\\u12\"}", b"{\"a\":\"\\ud800\"}", b"{\"a\":\"\n\"}", b"{} {}", b"{\"a\":1}x",
            b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"{\"a\":\"\xff\"}", b"{\"\xc3\x28\":1}", b"\0",
            b"<xml/>", b"a=1&b=2", b"// comment\n{}", deep.as_bytes(),
        ];
        for (method, path, _) in bodies(&config, &artifact, &task) {
            for body in malformed {
                if body.is_empty() && path.ends_with("$execute") {
                    // Its body may be left out.
                    continue;
                }
                let request = client.request(method.clone(), &path).body(body.to_vec());
                let answer = request.header("content-type", "application/json").send().await;
                let shown: String = String::from_utf8_lossy(body).chars().take(40).collect();
                assert_refused(&answer, &format!("{method} {path} {shown}"));
                assert_eq!(answer.status, 422, "{method} {path} {shown}: {}", answer.body);
                assert_eq!(answer.body["errors"][0]["loc"][0], "body", "{}", answer.body);
            }
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn an_id_in_a_body_that_is_none_is_422(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        let before = stored(&database).await;
        let cases = [
            ("/api/v1/ml/$train".to_owned(), train_body(ID), "config_id"),
            (
                "/api/v1/ml/$predict".to_owned(),
                json!({"historic": frame(), "future": frame()}),
                "artifact_id",
            ),
            (format!("/api/v1/configs/{id}/$link-artifact"), json!({}), "artifact_id"),
            (format!("/api/v1/configs/{id}/$unlink-artifact"), json!({}), "artifact_id"),
            ("/api/v1/artifacts".to_owned(), json!({"data": {}}), "parent_id"),
            ("/api/v1/artifacts".to_owned(), json!({"data": {}}), "id"),
            ("/api/v1/configs".to_owned(), json!({"name": "n", "data": {}}), "id"),
            ("/api/v1/tasks".to_owned(), json!({"command": "f", "task_type": "python"}), "id"),
        ];
        for (path, body, key) in cases {
            for wrong in [
                json!(null), json!(1.5), json!(7), json!({}), json!([]), json!(true), json!(""),
                json!("nope"), json!("01K72PWT05GEXK1S24AVKAZ9V"), json!("01K72PWT05GEXK1S24AVKAZ9VEE"),
                json!("01K72PWT05GEXK1S24AVKAZ9VU"), json!("81K72PWT05GEXK1S24AVKAZ9VE"),
                json!("01K72PWT05GEXK1S24AVKAZ9V\u{0}"), json!("０1K72PWT05GEXK1S24AVKAZ9V"),
            ] {
                if wrong.is_null() && (key == "id" || key == "parent_id") {
                    continue;
                }
                let mut body = body.clone();
                body[key] = wrong.clone();
                let answer = client.post(&path, &body).await;
                assert_eq!(answer.status, 422, "{path} {key} {wrong}: {}", answer.body);
                assert_refused(&answer, &format!("{path} {key} {wrong}"));
            }
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn every_violation_is_in_one_answer(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let body = json!({"config_id": 1, "data": {"columns": ["a", "a"], "data": [[1, 2], [1], "x"]}});
        let answer = client.post("/api/v1/ml/$train", &body).await.expect(422);
        let places: Vec<String> =
            answer.body["errors"].as_array().unwrap().iter().map(|it| it["loc"].to_string()).collect();
        let expected = [
            r#"["body","config_id"]"#,
            r#"["body","data","columns",1]"#,
            r#"["body","data","data",2]"#,
        ];
        for place in expected {
            assert!(places.contains(&place.to_owned()), "{place} is not in {places:?}");
        }
        server.stop().await;
    }

    async fn zero_characters_are_kept_or_refused_never_a_defect(database: TestDatabase) {
        let (server, client) = start_busy(&database).await;
        let zero = "a\u{0}b";
        for (path, body) in [
            ("/api/v1/configs", json!({"name": zero, "data": {}})),
            ("/api/v1/configs", json!({"name": "n", "tags": [zero], "data": {}})),
            ("/api/v1/artifacts", json!({"tags": [zero], "data": {}})),
            ("/api/v1/tasks", json!({"command": zero})),
        ] {
            let before = stored(&database).await;
            let answer = client.post(path, &body).await.expect(422);
            assert_refused(&answer, &body);
            assert_eq!(stored(&database).await, before);
        }
        // In JSON it is a character as any other.
        let data = json!({"text": zero, zero: [zero]});
        let made = client.post("/api/v1/configs", &json!({"name": "n", "data": data})).await.expect(201);
        assert_eq!((&made.body["data"]["text"], &made.body["data"][zero]), (&json!(zero), &json!([zero])));
        let body = json!({"data": {"content": {zero: zero}, "metadata": {zero: zero}}});
        let made = client.post("/api/v1/artifacts", &body).await.expect(201);
        assert_eq!(made.body["data"], body["data"]);
        for query in [
            "name=a%00b", "name[ne]=%00", "name[in]=a,%00", "name[contains]=%00", "name[gt]=%00",
            "q=%00", "q=a%00", "tags=%00", "tags[in]=%00,b", "id=%00", "sort=%00", "fields=%00",
            "%00=1", "cursor=%00", "page=%00&size=1", "created_at=%00",
        ] {
            let answer = client.get(&format!("/api/v1/configs?{query}")).await;
            assert_refused(&answer, &query);
        }
        server.stop().await;
    }

    async fn long_texts_are_stored_whole_and_asked_for(database: TestDatabase) {
        let (server, client) = start_busy(&database).await;
        let long = "långt ".repeat(200_000);
        let made = client.post("/api/v1/configs", &json!({"name": long, "data": {}})).await;
        let id = text(&made.expect(201).body["id"]);
        let found = client.get(&format!("/api/v1/configs/{id}")).await.expect(200);
        assert_eq!(found.body["name"], json!(long));
        let answer = client.get(&format!("/api/v1/configs?name={}", "x".repeat(50_000))).await;
        assert_eq!(answer.expect(200).body, json!([]));
        server.stop().await;
    }
}

/// Checks the results of a bulk request, each of which has a status of its own.
fn undone(answer: &TestResponse, what: &str) {
    for result in answer.body["results"].as_array().into_iter().flatten() {
        assert!(result["status"].as_u64().unwrap() < 500, "{what}: {result}");
    }
}
