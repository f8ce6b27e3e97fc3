//! The service as its clients see it.

use std::time::Duration;

use modelyard::{
    Frame, Server,
    settings::{Options as Overrides, Settings},
};
use modelyard_testkit::TestClient;
use serde_json::{Value, json};

use super::{Request, assert_complete, remove};
use crate::{Options, calendar::Calendar, service};

/// A server with a data directory of its own; gone with the directory.
async fn start() -> (Server, TestClient, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = Some(directory.path().join("data"));
    let overrides = Overrides { port: Some(0), data_dir, ..Overrides::default() };
    let settings = Settings::with_options(&overrides).unwrap();
    let service = service().unwrap().build().unwrap();
    let server = Server::start(vec![service], settings).await.unwrap();
    let client = TestClient::new(format!("http://{}", server.address()));
    (server, client, directory)
}

async fn config(client: &TestClient, data: Value) -> Value {
    let body = json!({"name": "a config", "data": data});
    client.post("/api/v1/configs", &body).await.expect(201).body["id"].clone()
}

/// Runs a job to its end, and gives the id of its artifact.
async fn run(client: &TestClient, path: &str, body: &Value) -> Value {
    let submitted = client.post(path, body).await.expect(202).body;
    let job = format!("/api/v1/jobs/{}", submitted["job_id"].as_str().unwrap());
    loop {
        let job = client.get(&job).await.expect(200).body;
        match job["status"].as_str() {
            Some("pending" | "running") => tokio::time::sleep(Duration::from_millis(10)).await,
            status => {
                assert_eq!(status, Some("completed"), "{job}");
                return submitted["artifact_id"].clone();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_from_a_config_to_a_forecast() {
    let (server, client, _directory) = start().await;
    let request = Request::of(Calendar::Monthly);
    let Request { training, historic, future } = &request;

    let config = config(&client, json!({"n_samples": 30, "n_lags": 2})).await;
    let body = json!({"config_id": config, "data": training});
    let trained = run(&client, "/api/v1/ml/$train", &body).await;
    let body = json!({"artifact_id": trained, "historic": historic, "future": future});
    let forecast = run(&client, "/api/v1/ml/$predict", &body).await;

    let artifact = format!("/api/v1/artifacts/{}", forecast.as_str().unwrap());
    let content = client.get(&artifact).await.expect(200).body["data"]["content"].clone();
    let found: Frame = serde_json::from_value(content).unwrap();
    let options = Options { n_samples: 30, n_lags: 2, ..Options::default() };
    assert_complete(&found, &request, &options);
    let expected = request.forecast(&options).await.unwrap();
    assert_eq!((found.columns, found.data), (expected.columns, expected.data));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_finds_wrong_is_said_before_a_training() {
    let (server, client, _directory) = start().await;
    let config = config(&client, json!({})).await;
    let mut training = Request::of(Calendar::Monthly).training;
    remove(&mut training, "rainfall");
    let body = json!({"type": "train", "config_id": config, "data": training});
    let answer = client.post("/api/v1/ml/$validate", &body).await.expect(200).body;
    let diagnostic = json!({
        "severity": "error",
        "code": "missing_column",
        "message": "the training data has no column `rainfall`",
        "field": "data",
    });
    assert_eq!(answer, json!({"valid": false, "diagnostics": [diagnostic]}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_out_of_bounds_are_refused() {
    let (server, client, _directory) = start().await;
    for data in [
        json!({"n_samples": 0}),
        json!({"n_samples": 10_001}),
        json!({"n_lags": 13}),
        json!({"n_lags": "many"}),
        json!({"ridge": -1}),
        json!({"seed": 4_294_967_296_u64}),
        json!({"additional_continuous_covariates": "humidity"}),
    ] {
        let body = json!({"name": "a config", "data": data});
        client.post("/api/v1/configs", &body).await.expect(422);
    }
    server.stop().await;
}
