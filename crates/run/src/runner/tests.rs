//! Real processes and real files. Waiting times are short, and nothing waits longer than it must.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use modelyard_kernel::{Failure, Kind, Progress, Verdict};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;

mod checkpoints;
mod documented;
mod functions;
mod keeping;
mod processes;
mod scripts;
mod sweeping;
mod watching;

/// A workspace under a directory that goes away with the test.
struct Place {
    run: Run,
    root: tempfile::TempDir,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(root.path(), "test").unwrap();
    Place { run: Run::new(workspace, CancellationToken::new()), root }
}

/// Remembers what it heard.
#[derive(Debug, Default)]
struct Heard {
    lines: Mutex<Vec<(Stream, String)>>,
    progress: Mutex<Vec<Progress>>,
    checkpoints: Mutex<Vec<(String, Bytes)>>,
    /// How long it takes to store a checkpoint.
    delay: Duration,
    /// Until when it takes to store the first one.
    gate: Option<Notify>,
    storing: AtomicBool,
    /// Whether nobody wants the run any more.
    unwanted: bool,
}

#[async_trait]
impl Watcher for Heard {
    fn said(&self, stream: Stream, line: &str) {
        self.lines.lock().push((stream, line.to_owned()));
    }

    fn progressed(&self, progress: Progress) {
        self.progress.lock().push(progress);
    }

    async fn checkpointed(&self, name: &str, archive: Archive) -> Result<(), Failure> {
        sleep(self.delay).await;
        if let Some(gate) = &self.gate
            && !self.storing.swap(true, Ordering::Relaxed)
        {
            gate.notified().await;
        }
        let Archive::Memory(bytes) = archive else { panic!("it is small") };
        self.checkpoints.lock().push((name.to_owned(), bytes));
        if name == "refused" {
            Err(Failure::new(Kind::Unavailable, "away", "the store is away"))
        } else {
            Ok(())
        }
    }

    async fn is_resumed(&self) -> bool {
        !self.unwanted
    }
}

impl Heard {
    /// What was said on one of the streams.
    fn lines(&self, stream: Stream) -> Vec<String> {
        let lines = self.lines.lock();
        lines.iter().filter(|(of, _)| *of == stream).map(|(_, line)| line.clone()).collect()
    }

    /// The names of the checkpoints that were stored.
    fn checkpoints(&self) -> Vec<String> {
        self.checkpoints.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    fn newest_checkpoint(&self) -> (String, Bytes) {
        self.checkpoints.lock().last().unwrap().clone()
    }
}

/// A place whose run is heard.
fn heard_place() -> (Place, Arc<Heard>) {
    heard_by(Heard::default())
}

fn heard_by(heard: Heard) -> (Place, Arc<Heard>) {
    let heard = Arc::new(heard);
    let Place { run, root } = place();
    (Place { run: run.with_watcher(heard.clone()), root }, heard)
}

async fn sh(place: &Place, command: &str, limits: &Limits) -> Result<ScriptOutput, RunError> {
    let environment = BTreeMap::from([("GREETING".to_owned(), "it's \"me\"".to_owned())]);
    let directory = place.run.workspace.path().unwrap();
    let script = Script { stage: "train", command, directory, environment: &environment, limits };
    run_script(script, &place.run).await
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
