//! Jobs that begin by the clock, in a whole server.

use modelyard_testkit::{TestClient, on_both_databases};
use serde_json::{Value, json};

use crate::support::{config, ended, start_model, text, train_body, until};

async fn schedule(client: &TestClient, kind: &str, input: Value, more: Value) -> String {
    let trigger = json!({"type": "cron", "expression": "@daily"});
    let target = json!({"kind": kind, "input": input});
    let mut body = json!({"name": "by the clock", "trigger": trigger, "target": target});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let created = client.post("/api/v1/schedules", &body).await.expect(201);
    format!("/api/v1/schedules/{}", text(&created.body["id"]))
}

on_both_databases! {
    async fn a_task_is_executed_at_every_tick(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let task = json!({"command": "echo", "task_type": "python"});
        let task = text(&client.post("/api/v1/tasks", &task).await.expect(201).body["id"]);
        let every = json!({"trigger": {"type": "interval", "every_seconds": 1}});
        let input = json!({"task_id": task, "parameters": {"a": 1}});
        let schedule = schedule(&client, "task.execute", input, every).await;
        let history = format!("{schedule}/$history");
        until("two ticks have fired", async || {
            let runs = client.get(&history).await.expect(200).body;
            runs.as_array().unwrap().iter().filter(|it| it["outcome"] == "fired").count() >= 2
        })
        .await;
        client.post(&format!("{schedule}/$pause"), &Value::Null).await.expect(200);
        for run in client.get(&history).await.expect(200).body.as_array().unwrap() {
            if run["outcome"] == "fired" {
                let job = ended(&client, run["job_id"].as_str().unwrap()).await;
                assert_eq!((&job["status"], &job["label"]), (&json!("completed"), &json!("by the clock")));
            }
        }
        server.stop().await;
    }

    async fn a_model_is_trained_when_its_schedule_is_run(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let config = config(&client, json!({})).await;
        let schedule = schedule(&client, "ml.train", train_body(&config), json!({})).await;
        let begun = client.post(&format!("{schedule}/$run-now"), &Value::Null).await.expect(202);
        let job = ended(&client, begun.body["job_id"].as_str().unwrap()).await;
        assert_eq!(job["status"], "completed", "{job}");
        client.get(&format!("/api/v1/artifacts/{}", text(&job["artifact_id"]))).await.expect(200);
        server.stop().await;
    }

    async fn input_that_begins_nothing_is_refused_when_it_is_written(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let body = |kind: &str, input: Value| {
            json!({"name": "a", "trigger": {"type": "cron", "expression": "@daily"},
                "target": {"kind": kind, "input": input}})
        };
        let all =
            ["ml.batch-predict", "ml.batch-train", "ml.predict", "ml.train", "task.execute"];
        for kind in all {
            client.post("/api/v1/schedules", &body(kind, json!({"x": 1}))).await.expect(422);
        }
        let unknown = client.post("/api/v1/schedules", &body("ml.sing", json!({}))).await;
        let unknown = unknown.expect(422);
        let told = text(&unknown.body["errors"][0]["msg"]);
        assert!(all.iter().all(|kind| told.contains(&format!("'{kind}'"))), "{told}");
        server.stop().await;
    }
}
