//! The tasks behind the recorded exchanges of `t01`: functions, and what was stored before the
//! recording began.

use std::time::Duration;

use modelyard::{ModelError, Service, ServiceBuilder, ServiceInfo};
use modelyard_testkit::TestClient;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Python prints its times so.
const THEN: &str = "2026-11-20T08:58:40.763246+00:00";

#[derive(Deserialize, JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

#[derive(Deserialize, JsonSchema)]
struct Text {
    input_text: String,
    uppercase: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Computation {
    seconds: u64,
}

/// A service of tasks, some of which are functions.
pub fn service() -> ServiceBuilder {
    let info = ServiceInfo::new("task-execution", "Python Task Execution Service");
    Service::builder(info)
        .with_shell_tasks()
        .with_task("calculate_sum", |it: Sum| async move {
            Ok(json!({"result": it.a + it.b, "operation": "sum"}))
        })
        .with_task("process_data", |it: Text| async move {
            let Text { input_text, uppercase } = it;
            let processed = if uppercase { input_text.to_uppercase() } else { input_text.clone() };
            let length = processed.chars().count();
            Ok(json!({
                "original": input_text, "processed": processed, "length": length, "timestamp": THEN,
            }))
        })
        .with_task("slow_computation", |it: Computation| async move {
            tokio::time::sleep(Duration::from_secs(it.seconds)).await;
            Ok(json!({"completed": true, "duration_seconds": it.seconds}))
        })
        .with_task("failing_task", |_: Map<String, Value>| async move {
            let error = ModelError::of("ValueError", "This task was designed to fail");
            Err::<Value, ModelError>(error)
        })
        .with_task("query_task_count", |_: Map<String, Value>| async move {
            Ok(json!({"total_tasks": 8, "timestamp": THEN, "injected_session": true}))
        })
}

/// Stores the tasks that were there before the recording.
pub async fn seed(client: &TestClient) {
    let python = |command, parameters, enabled| {
        json!({
            "command": command, "task_type": "python", "parameters": parameters, "enabled": enabled,
        })
    };
    let hello = json!({"input_text": "Hello World", "uppercase": true});
    let disabled = json!({"input_text": "Disabled", "uppercase": false});
    let tasks = [
        python("calculate_sum", json!({"a": 10, "b": 32}), true),
        python("process_data", hello, true),
        python("slow_computation", json!({"seconds": 1}), true),
        python("failing_task", json!({"should_fail": true}), true),
        json!({"command": "echo \"This is a shell task\""}),
        python("process_data", disabled, false),
        python("query_task_count", json!({}), true),
        python("nonexistent_function", json!({}), true),
    ];
    for (number, mut task) in (1..).zip(tasks) {
        task["id"] = json!(format!("01JCSEED0000000000000PYTH{number}"));
        let _stored = client.post("/api/v1/tasks", &task).await.expect(201);
    }
}
