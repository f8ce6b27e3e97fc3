//! Data frames that are none.

use modelyard_testkit::on_both_databases;
use serde_json::{Value, json};

use crate::support::{assert_refused, config, ended, frame, start_model, stored, submitted};

const ID: &str = "01K72PWT05GEXK1S24AVKAZ9VE";

fn frames() -> Vec<(&'static str, Value)> {
    let wide: Vec<String> = (0..3000).map(|it| format!("column {it}")).collect();
    vec![
        ("no rows", json!({"columns": ["a", "b"], "data": []})),
        ("nothing at all", json!({"columns": [], "data": []})),
        ("a row too short", json!({"columns": ["a", "b"], "data": [[1, 2], [1]]})),
        ("a row too long", json!({"columns": ["a"], "data": [[1], [1, 2]]})),
        ("rows without columns", json!({"columns": [], "data": [[1]]})),
        ("empty rows", json!({"columns": ["a"], "data": [[], []]})),
        ("one column twice", json!({"columns": ["a", "a"], "data": [[1, 2]]})),
        ("a list in a cell", json!({"columns": ["a"], "data": [[[1]]]})),
        ("an object in a cell", json!({"columns": ["a"], "data": [[{"b": 1}]]})),
        ("a column that is a number", json!({"columns": [1], "data": [[1]]})),
        ("rows that are objects", json!({"columns": ["a"], "data": [{"a": 1}]})),
        ("columns that are an object", json!({"columns": {"a": [1]}, "data": []})),
        (
            "a schema of another frame",
            json!({"columns": ["a"], "data": [[1]],
            "schema": {"fields": [{"name": "b", "type": "string"}]}}),
        ),
        (
            "a schema of an unknown type",
            json!({"columns": ["a"], "data": [[1]],
            "schema": {"fields": [{"name": "a", "type": "complex"}]}}),
        ),
        ("wide and ragged", json!({"columns": wide, "data": vec![vec![1; 2]; 3000]})),
        ("null", Value::Null),
        ("a list", json!([[1, 2]])),
        ("a text", json!("a,b\n1,2\n")),
    ]
}

on_both_databases! {
    async fn a_frame_that_is_none_is_refused_before_a_job_is_made(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        let good = frame();
        let before = stored(&database).await;
        for (what, frame) in frames() {
            for body in [
                json!({"config_id": id, "data": frame}),
                json!({"artifact_id": ID, "historic": frame, "future": good}),
                json!({"artifact_id": ID, "historic": good, "future": frame}),
            ] {
                let verb = if body.get("data").is_some() { "train" } else { "predict" };
                let answer = client.post(&format!("/api/v1/ml/${verb}"), &body).await;
                assert_refused(&answer, &what);
                assert_eq!(answer.status, 422, "{what}: {}", answer.body);
                assert!(answer.bytes.len() < 500_000, "{what}: {} bytes", answer.bytes.len());
            }
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn numbers_that_json_does_not_have_are_refused(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        let before = stored(&database).await;
        for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan", "inf", "0x10"] {
            let body = format!(
                r#"{{"config_id": "{id}", "data": {{"columns": ["a"], "data": [[{number}]]}}}}"#
            );
            let request = client.request(http::Method::POST, "/api/v1/ml/$train").body(body);
            let answer = request.header("content-type", "application/json").send().await;
            assert_refused(&answer, &number);
            assert_eq!(answer.status, 422, "{number}");
        }
        assert_eq!(stored(&database).await, before);
        server.stop().await;
    }

    async fn odd_frames_that_are_frames_can_be_trained_with(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        for frame in [
            json!({"columns": ["a,b\"\n", "\u{0}", "", "😀"], "data": [["x,y\"\r\n", "\u{0}", "", null]]}),
            json!({"columns": ["a"], "data": [[1], ["one"], [true], [null], [1e308], [u64::MAX], [-0.0]]}),
        ] {
            let body = json!({"config_id": id, "data": frame});
            let answer = client.post("/api/v1/ml/$train", &body).await.expect(202);
            let job = submitted(&answer).job;
            assert_eq!(ended(&client, &job).await["status"], "completed");
        }
        server.stop().await;
    }
}
