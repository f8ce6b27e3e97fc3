//! Jobs that begin by the clock while the program is killed: a prediction, and a batch whose file is the
//! content of an artifact.

use std::collections::BTreeSet;

use modelyard_testkit::TestClient;
use serde_json::{Value, json};

use super::load::is_final;
use crate::support::{text, until};

/// What every job of the schedules is labelled.
const LABEL: &str = "by the clock";
/// What a batch that begins by the clock comes to.
const FILE: &str = "time_period,location\r\n2026-02,x\r\n2026-02,y\r\n";

/// Two schedules that fire every second.
#[derive(Debug)]
pub(super) struct Scheduled(Vec<String>);

impl Scheduled {
    /// Makes them for a service whose training this is.
    pub(super) async fn prepare(client: &TestClient, trained: &str) -> Self {
        let rows = ["x", "y"].map(|it| json!(["2026-02", it]));
        let rows = json!({"columns": ["time_period", "location"], "data": rows});
        let media = "application/vnd.chapkit.dataframe+json";
        let data = json!({"content_type": media, "content": rows});
        let file = client.post("/api/v1/artifacts", &json!({"data": data})).await.expect(201);
        let frame = json!({"columns": ["time_period", "location"], "data": [["2026-02", "x"]]});
        let targets = [
            json!({"kind": "ml.predict",
                "input": {"artifact_id": trained, "historic": frame, "future": frame}}),
            json!({"kind": "ml.batch-predict", "input": {"artifact_id": trained,
                "source_artifact_id": file.body["id"], "chunk_rows": 1}}),
        ];
        let mut made = Vec::new();
        for target in targets {
            let schedule = json!({"name": LABEL, "target": target, "overlap": "allow",
                "trigger": {"type": "interval", "every_seconds": 1}});
            let schedule = client.post("/api/v1/schedules", &schedule).await.expect(201).body;
            made.push(text(&schedule["id"]));
        }
        Self(made)
    }

    /// Paths that pause them.
    pub(super) fn pauses(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|id| format!("/api/v1/schedules/{id}/$pause"))
    }

    /// Checks that every tick has begun one job, which came to its end. Returns how many jobs there are.
    pub(super) async fn check(&self, client: &TestClient) -> usize {
        let jobs = async || -> Vec<Value> {
            let mut jobs = Vec::new();
            for page in 1.. {
                let path = format!("/api/v1/jobs?label=by+the+clock&page={page}&size=100");
                let listed = client.get(&path).await.expect(200).body;
                match listed["items"].as_array() {
                    Some(items) if !items.is_empty() => jobs.extend(items.iter().cloned()),
                    _ => break,
                }
            }
            jobs
        };
        until("what began by the clock ends", async || jobs().await.iter().all(is_final)).await;
        let jobs = jobs().await;
        let mut begun = BTreeSet::new();
        let mut oldest = String::new();
        for id in &self.0 {
            let path = format!("/api/v1/schedules/{id}/$history");
            let history = client.get(&path).await.expect(200).body;
            let history = history.as_array().unwrap();
            assert!(!history.is_empty(), "it never fired");
            for run in history.iter().filter(|it| it["outcome"] == "fired") {
                assert!(begun.insert(text(&run["job_id"])), "a job of two ticks: {run}");
            }
            oldest = oldest.max(history.iter().map(|it| text(&it["fired_at"])).min().unwrap());
        }
        let mut batches = 0;
        for job in &jobs {
            let id = text(&job["id"]);
            let is_remembered = text(&job["submitted_at"]) > oldest;
            assert!(begun.remove(&id) || !is_remembered, "a job of no tick: {job}");
            if job["error"].as_str().is_some_and(|it| it.contains("given up")) {
                continue;
            }
            assert_eq!(job["status"], "completed", "{job}");
            if job["kind"] == "ml.batch-predict" {
                let path = format!("/api/v1/artifacts/{}/$download", text(&job["artifact_id"]));
                assert_eq!(client.get(&path).await.expect(200).text(), FILE);
                batches += 1;
            }
        }
        assert!(begun.is_empty(), "ticks have begun jobs that are gone: {begun:?}");
        assert!(batches > 0, "no batch began by the clock");
        jobs.len()
    }
}
