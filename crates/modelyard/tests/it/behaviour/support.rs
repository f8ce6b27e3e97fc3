//! What these tests stand on: a model that does what its config says, and ways to ask for it.

use std::path::Path;
use std::time::{Duration, Instant};

use modelyard::settings::{Options, Settings};
use modelyard::{
    Diagnostic, Frame, ModelError, PredictData, Server, Service, ServiceInfo, TrainData, functions,
};
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// Settings of a server of this test, on a free port, with its data beside the database.
pub fn settings(database: &TestDatabase) -> Settings {
    let options = Options {
        port: Some(0),
        data_dir: Some(database.dir().join("data")),
        database: Some(database.url.clone()),
        ..Options::default()
    };
    let mut settings = Settings::with_options(&options).unwrap();
    // Tests do not wait for what they left running.
    settings.jobs.drain = Duration::ZERO;
    settings.server.drain = Duration::from_millis(100);
    settings
}

/// A running server of one service, and a client of it.
pub async fn start(service: Service, settings: Settings) -> (Server, TestClient) {
    let server = Server::start(vec![service], settings).await.unwrap();
    let client = TestClient::new(format!("http://{}", server.address()));
    (server, client)
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

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text was expected: {value}")).to_owned()
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

/// Waits until `happened`.
pub async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !happened().await {
        assert!(began.elapsed() < PATIENCE, "it does not come to pass that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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

/// Every file below a directory.
pub fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path().display().to_string()),
        }
    }
    found
}

/// Checks that a refusal is one: 4xx, with the contract's body. Anything else fails with `what`.
#[track_caller]
pub fn assert_refused(answer: &TestResponse, what: &dyn std::fmt::Display) {
    let (status, body) = (answer.status.as_u16(), &answer.body);
    assert!((400..500).contains(&status), "{what}: {status} {body}");
    assert_problem(answer, what);
}

/// Checks that an answer is a problem document.
#[track_caller]
pub fn assert_problem(answer: &TestResponse, what: &dyn std::fmt::Display) {
    let (status, body) = (answer.status.as_u16(), &answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {body}");
    assert_eq!(body["status"], status, "{what}: {body}");
    for key in ["type", "title", "detail", "instance", "code", "trace_id"] {
        assert!(body[key].is_string(), "{what}: no {key} in {body}");
    }
    assert!(text(&body["type"]).starts_with("urn:servicekit:error:"), "{what}: {body}");
    assert_eq!(answer.header("x-request-id"), body["trace_id"].as_str(), "{what}: {body}");
}
