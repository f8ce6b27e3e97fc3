//! What these tests stand on: a server in this process, the program itself, a model that does what it
//! is told, and ways to wait that have an end.

pub mod house;
mod model;
pub mod post_office;
pub mod postgres;
pub mod program;
pub mod redis;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modelyard::settings::{Options, Settings};
use modelyard::{Server, Service};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse};
use serde_json::Value;

pub use model::{
    Submitted, config, ended, frame, running, service, start_model, stored, stored_in, submitted,
    train_body, train_with,
};

/// The secret of every deployment of tests: those of several processes share it.
pub const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

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
    settings.access.secret = Some(SECRET.to_owned());
    settings.server.drain = Duration::from_millis(100);
    settings
}

/// A running server of one service, and a client of it.
pub async fn start(service: Service, settings: Settings) -> (Server, TestClient) {
    let server = Server::start(vec![service], settings).await.unwrap();
    let client = TestClient::new(format!("http://{}", server.address()));
    (server, client)
}

/// Waits until `happened`.
pub async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !happened().await {
        assert!(began.elapsed() < PATIENCE, "it does not come to pass that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text was expected: {value}")).to_owned()
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

/// Fills a disk to the last byte, and gives the file that does it.
pub fn fill(directory: &Path) -> PathBuf {
    let ballast = directory.join("ballast");
    let mut file = fs_err::File::create(&ballast).unwrap();
    for size in [1_000_000, 10_000, 100, 1] {
        let bytes = vec![0; size];
        while file.write_all(&bytes).is_ok() && file.metadata().unwrap().len() < 200_000_000 {}
    }
    ballast
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
