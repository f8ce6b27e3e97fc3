//! A model that does what its config says, and ways to ask for it.

use std::time::{Duration, Instant};

use modelyard::{
    Diagnostic, Frame, ModelError, PredictData, Server, Service, ServiceInfo, TrainData, functions,
};
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{PATIENCE, settings, start, text, until};

/// A model's config: what training is to do.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Orders {
    how: How,
    seconds: f64,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum How {
    Wait,
    Compute,
    Fail,
}

impl Default for Orders {
    fn default() -> Self {
        Self { how: How::Wait, seconds: 0.0 }
    }
}

/// The service of that model, with a function for tasks.
pub fn service(id: &str) -> Service {
    Service::builder(ServiceInfo::new(id, "Behaviour"))
        .config::<Orders>()
        .runner(functions(train, predict).validate_train(validate))
        .with_task("echo", |it: Map<String, Value>| async move { Ok(it) })
        .build()
        .unwrap()
}

async fn train(orders: Orders, it: TrainData) -> Result<usize, ModelError> {
    let time = Duration::from_secs_f64(orders.seconds);
    match orders.how {
        How::Wait => tokio::time::sleep(time).await,
        How::Compute => {
            let began = Instant::now();
            // Never waits and never looks whether it is still wanted.
            while began.elapsed() < time {
                std::hint::black_box((0..1000_u64).sum::<u64>());
            }
        }
        // PostgreSQL takes no zero characters.
        How::Fail => return Err(ModelError::of("ValueError", "no\0 way")),
    }
    Ok(it.data.rows())
}

/// Takes as long as a training that waits would.
async fn validate(orders: Orders, _: TrainData) -> Result<Vec<Diagnostic>, ModelError> {
    tokio::time::sleep(Duration::from_secs_f64(orders.seconds)).await;
    Ok(Vec::new())
}

async fn predict(_: Orders, rows: usize, it: PredictData) -> Result<Frame, ModelError> {
    let mut predictions = it.future;
    predictions.columns.push("sample_0".to_owned());
    predictions.data.iter_mut().for_each(|row| row.push(rows.into()));
    Ok(predictions)
}

/// A running server of the model above.
pub async fn start_model(database: &TestDatabase) -> (Server, TestClient) {
    start(service("behaviour"), settings(database)).await
}

/// The id of a new config.
pub async fn config(client: &TestClient, data: Value) -> String {
    let body = json!({"name": "a config", "data": data});
    text(&client.post("/api/v1/configs", &body).await.expect(201).body["id"])
}

/// A job and the artifact that it promises.
#[derive(Clone, Debug)]
pub struct Submitted {
    pub job: String,
    pub artifact: String,
}

/// Asks for a training with a small frame.
pub async fn train_with(client: &TestClient, config: &str) -> Submitted {
    submitted(&client.post("/api/v1/ml/$train", &train_body(config)).await.expect(202))
}

pub fn submitted(answer: &TestResponse) -> Submitted {
    Submitted { job: text(&answer.body["job_id"]), artifact: text(&answer.body["artifact_id"]) }
}

pub fn train_body(config: &str) -> Value {
    json!({"config_id": config, "data": frame()})
}

/// A small frame.
pub fn frame() -> Value {
    json!({
        "columns": ["time_period", "location", "rainfall", "disease_cases"],
        "data": [["2026-01", "north", 1.5, 3], ["2026-02", "north", 2, 5], ["2026-01", "south", null, 0]],
    })
}

/// A job's record once it has ended.
pub async fn ended(client: &TestClient, job: &str) -> Value {
    let began = Instant::now();
    loop {
        let record = client.get(&format!("/api/v1/jobs/{job}")).await.expect(200).body;
        if !matches!(record["status"].as_str(), Some("pending" | "running")) {
            return record;
        }
        assert!(began.elapsed() < PATIENCE, "a job does not end: {record}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a job runs.
pub async fn running(client: &TestClient, job: &str) {
    let path = format!("/api/v1/jobs/{job}");
    until("a job runs", async || client.get(&path).await.expect(200).body["status"] == "running")
        .await;
}

/// How many rows each table has, and how many of the blobs anybody refers to.
pub async fn stored(database: &TestDatabase) -> Vec<(&'static str, i64)> {
    const OF: [&str; 6] =
        ["configs", "artifacts", "config_artifacts", "jobs", "tasks", "blobs WHERE refs > 0"];
    let counts = OF.map(|it| format!("SELECT COUNT(*) FROM {it}")).join(" UNION ALL ");
    let mut conn = database.db.conn().await.unwrap();
    let counts: Vec<(i64,)> = query(counts).fetch_all(&mut conn).await.unwrap();
    OF.into_iter().zip(counts).map(|(of, (count,))| (of, count)).collect()
}

/// How many rows a table has: `users`, or `jobs WHERE …`.
pub async fn stored_in(database: &TestDatabase, of: &'static str) -> i64 {
    let mut conn = database.db.conn().await.unwrap();
    let counts: Vec<(i64,)> =
        query(format!("SELECT COUNT(*) FROM {of}")).fetch_all(&mut conn).await.unwrap();
    counts[0].0
}
