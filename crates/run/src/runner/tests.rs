//! Real processes and real files. Waiting times are short, and nothing waits longer than it must.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;

mod functions;
mod processes;
mod scripts;
mod sweeping;

/// A workspace under a directory that goes away with the test.
struct Place {
    run: Run,
    root: tempfile::TempDir,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(root.path(), "test").unwrap();
    Place { run: Run { workspace, cancel: CancellationToken::new() }, root }
}

impl Place {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.run.workspace.path().unwrap().join(name)
    }
}

fn frame(value: Value) -> Frame {
    serde_json::from_value(value).unwrap()
}

fn train_input(config: Value, geo: Option<Value>) -> TrainInput {
    let Value::Object(config) = config else { panic!("a config is an object") };
    let data = frame(
        json!({"columns": ["time_period", "cases"], "data": [["2023-01", 5], ["2023-02", null]]}),
    );
    TrainInput { config, data, geo }
}

fn predict_input(config: Value) -> PredictInput {
    let TrainInput { config, data, .. } = train_input(config, None);
    let future = frame(json!({"columns": ["time_period"], "data": [["2023-03"]]}));
    PredictInput { config, historic: data, future, geo: None }
}

/// Whether the process is there and not merely waiting to be forgotten.
fn is_running(pid: &str) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), patience).await.is_ok(), "waited for {what}");
}

/// Waits for the file a script writes, and reads it.
async fn written(file: &Path) -> String {
    let read = || fs_err::read_to_string(file).unwrap_or_default();
    until("a file", || read().ends_with('\n')).await;
    read()
}
