//! Clients that want something all the time, do not give up, and remember what they were promised.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use modelyard_testkit::{TestClient, TestResponse};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::random::Random;
use super::scheduled::Scheduled;
use super::site::Site;
use crate::support::{Submitted, submitted, text};

/// Nobody hears more than this many jobs behind: what is promised must also be kept.
const OPEN: usize = 10;

const JSON: &str = "application/json";

/// How long an answer may take; a frozen server gives none.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the last job may take when nobody kills any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job that a client was promised with 202.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// The idempotency key, which stands in the data as well.
    pub(super) key: String,
    pub(super) stage: Stage,
    pub(super) submitted: Submitted,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    Train,
    /// A training whose first run says that it may go well later.
    Hesitate,
    /// A training that is cancelled as soon as it is promised.
    Cancel,
    Predict,
    /// Predictions for the rows of a file, each a chunk.
    Batch,
}

/// What a client wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) stage: Stage,
    /// How long a training takes.
    pub(super) takes: Duration,
    /// Rows of its data; many do not fit into the job's row.
    pub(super) rows: usize,
}

/// The clients' side of it all.
#[derive(Debug)]
pub(super) struct Load {
    server: watch::Receiver<Option<TestClient>>,
    config: String,
    /// A training to predict with, made before the first kill.
    trained: String,
    /// What begins by the clock besides.
    scheduled: Option<Scheduled>,
    /// How long a training may take.
    longest: Duration,
    over: AtomicBool,
    promises: Mutex<Vec<Promise>>,
    /// The record of each job as it was last seen, and when.
    seen: Mutex<HashMap<String, (Value, Instant)>>,
    /// The last events of streams.
    streamed: Mutex<Vec<Value>>,
    /// Jobs that the server said are cancelled.
    canceled: Mutex<HashSet<String>>,
    /// What must never be seen.
    violations: Mutex<Vec<String>>,
}

impl Load {
    /// Clients of a site that serves; they make what each of them needs.
    pub(super) async fn prepare(site: &Site, longest: Duration) -> Self {
        let program = site.start().await;
        let config = crate::support::config(&program.client, json!({})).await;
        let first = crate::support::train_with(&program.client, &config).await;
        let record = crate::support::ended(&program.client, &first.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        site.stop(program).await;
        Self {
            server: site.server(),
            config,
            trained: first.artifact,
            scheduled: None,
            longest,
            over: AtomicBool::default(),
            promises: Mutex::default(),
            seen: Mutex::default(),
            streamed: Mutex::default(),
            canceled: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// The same clients, and jobs that begin by the clock.
    pub(super) async fn with_schedules(site: &Site, longest: Duration) -> Self {
        let load = Self::prepare(site, longest).await;
        let program = site.start().await;
        let scheduled = Some(Scheduled::prepare(&program.client, &load.trained).await);
        site.kill(program).await;
        Self { scheduled, ..load }
    }

    /// Wants things until [`Load::end`], and then waits until every promise is kept.
    pub(super) async fn run(&self, random: &mut Random) {
        let (first, second) = (random.fork(), random.fork());
        let submitting = async { tokio::join!(self.submit("a", first), self.submit("b", second)) };
        tokio::select! {
            _all_is_kept = async {
                submitting.await;
                self.pause().await;
                self.settle().await;
            } => {}
            () = self.watch() => {}
            () = self.follow() => {}
        }
        self.compare_streams();
        let violations = self.violations.lock();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    /// Nobody wants anything more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Every job that was promised so far.
    pub(super) fn promises(&self) -> Vec<Promise> {
        self.promises.lock().clone()
    }

    async fn submit(&self, who: &str, mut random: Random) {
        for number in 0.. {
            tokio::time::sleep(random.time_below(Duration::from_millis(60))).await;
            while self.open() >= OPEN && !self.over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let stage = match random.below(16) {
                0 | 1 => Stage::Cancel,
                2 => Stage::Hesitate,
                3..=5 => Stage::Predict,
                6 => Stage::Batch,
                _ => Stage::Train,
            };
            let rows = if random.below(4) == 0 { 400 } else { 1 };
            let want = Want { stage, takes: random.time_below(self.longest), rows };
            let promise = self.promised(&format!("{who}{number}-{stage:?}"), want).await;
            if stage == Stage::Cancel {
                self.cancel(&promise).await;
            }
        }
    }

    /// Asks until it is promised.
    pub(super) async fn promised(&self, key: &str, want: Want) -> Promise {
        let stage = want.stage;
        let batch = format!("/api/v1/ml/$batch-predict?artifact_id={}&chunk_rows=1", self.trained);
        let (path, media, body) = match stage {
            Stage::Predict => ("/api/v1/ml/$predict", JSON, self.predict(key).to_string()),
            Stage::Batch => (&*batch, "text/csv", file(key)),
            _ => ("/api/v1/ml/$train", JSON, self.train(key, want).to_string()),
        };
        let began = Instant::now();
        loop {
            let asked = async |client: TestClient| {
                let request = client.request(Method::POST, path).header("content-type", media);
                let request = request.body(body.clone()).header("idempotency-key", key);
                request.try_send().await.ok()
            };
            match self.ask(asked).await {
                Some(answer) if answer.status == 202 => {
                    let submitted = submitted(&answer);
                    let promise = Promise { key: key.to_owned(), stage, submitted };
                    self.promises.lock().push(promise.clone());
                    return promise;
                }
                // Busy, without a database or room for it, or the first try is still under way.
                Some(answer) if matches!(answer.status.as_u16(), 409 | 429 | 503 | 507) => {}
                Some(answer) => panic!("{key}: {} {}", answer.status, answer.body),
                None => {}
            }
            assert!(began.elapsed() < PATIENCE, "{key} is not promised");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets nothing more begin by the clock.
    async fn pause(&self) {
        for path in self.scheduled.iter().flat_map(Scheduled::pauses) {
            let began = Instant::now();
            loop {
                let asked = async |client: TestClient| {
                    client.request(Method::POST, &path).try_send().await.ok()
                };
                if self.ask(asked).await.is_some_and(|it| it.status == 200) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{path} does not answer");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Checks what began by the clock. Returns how many jobs that are.
    pub(super) async fn check_scheduled(&self, client: &TestClient) -> usize {
        match &self.scheduled {
            Some(scheduled) => scheduled.check(client).await,
            None => 0,
        }
    }

    /// Cancels it, unless it has ended.
    async fn cancel(&self, Promise { key, submitted, .. }: &Promise) {
        let path = format!("/api/v1/jobs/{}/$cancel", submitted.job);
        let began = Instant::now();
        loop {
            let asked = async |client: TestClient| {
                client.request(Method::POST, &path).try_send().await.ok()
            };
            match self.ask(asked).await {
                Some(answer) if answer.status == 200 => {
                    self.canceled.lock().insert(submitted.job.clone());
                    return;
                }
                Some(answer) if answer.body["code"] == "job_ended" => return,
                Some(answer) if matches!(answer.status.as_u16(), 409 | 503 | 507) => {}
                Some(answer) => panic!("{key}: {} {}", answer.status, answer.body),
                None => {}
            }
            assert!(began.elapsed() < PATIENCE, "{key} cannot be cancelled");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn train(&self, key: &str, Want { takes, rows, .. }: Want) -> Value {
        let seconds = (takes.as_secs_f64() * 1e3).round() / 1e3;
        json!({"config_id": self.config, "data": {
            "columns": ["time_period", "location", "rainfall", "disease_cases"],
            "data": vec![json!(["2026-01", key, seconds, 3]); rows],
        }})
    }

    fn predict(&self, key: &str) -> Value {
        let frame = json!({
            "columns": ["time_period", "location", "sample_0"], "data": [["2026-02", key, 1.5]],
        });
        json!({"artifact_id": self.trained, "historic": frame, "future": frame})
    }

    /// Asks whoever serves now; nothing when nobody does, or it breaks off.
    pub(super) async fn ask(
        &self,
        ask: impl AsyncFnOnce(TestClient) -> Option<TestResponse>,
    ) -> Option<TestResponse> {
        let client = self.server.borrow().clone()?;
        tokio::time::timeout(ANSWER, ask(client)).await.ok().flatten()
    }

    async fn get(&self, path: &str) -> Option<TestResponse> {
        let asked =
            async |client: TestClient| client.request(Method::GET, path).try_send().await.ok();
        self.ask(asked).await.filter(|it| it.status != 503)
    }

    /// How many promised jobs have not been seen to end.
    fn open(&self) -> usize {
        let seen = self.seen.lock();
        let ended = |it: &&Promise| seen.get(&it.submitted.job).is_some_and(|it| is_final(&it.0));
        let promises = self.promises.lock();
        promises.len() - promises.iter().filter(ended).count()
    }

    /// Waits until every job that is promised by now has ended, and has a last look at each.
    pub(super) async fn settle(&self) {
        let promises = self.promises();
        let began = Instant::now();
        loop {
            let open: Vec<Option<Value>> = {
                let seen = self.seen.lock();
                let records = promises.iter().map(|it| seen.get(&it.submitted.job));
                let records = records.map(|it| it.map(|it| it.0.clone()));
                records.filter(|it| !it.as_ref().is_some_and(is_final)).collect()
            };
            for it in &promises {
                self.look_at_one(&it.submitted.job).await;
            }
            if open.is_empty() {
                println!("all was kept after {:?}", began.elapsed());
                return;
            }
            assert!(began.elapsed() < PATIENCE, "what was promised does not come: {open:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks that streams ended with what the records say.
    fn compare_streams(&self) {
        let seen = self.seen.lock();
        for streamed in self.streamed.lock().iter() {
            let (record, _) = &seen[&text(&streamed["id"])];
            if record != streamed {
                self.violation(format!("a stream ended otherwise:\n{streamed}\n{record}"));
            }
        }
    }

    /// Has a look at every job that is promised by now.
    pub(super) async fn look_at(&self, client: &TestClient) {
        for it in self.promises() {
            let path = format!("/api/v1/jobs/{}", it.submitted.job);
            self.saw(&client.get(&path).await.expect(200).body, Instant::now());
        }
    }

    async fn look_at_one(&self, job: &str) {
        let asked = Instant::now();
        let Some(answer) = self.get(&format!("/api/v1/jobs/{job}")).await else { return };
        match answer.status.as_u16() {
            200 => self.saw(&answer.body, asked),
            _ => self.violation(format!("{job} is lost: {} {}", answer.status, answer.body)),
        }
    }

    /// Looks at the newest jobs all the time.
    async fn watch(&self) {
        loop {
            let asked = Instant::now();
            if let Some(answer) = self.get("/api/v1/jobs?page=1&size=40").await {
                assert_eq!(answer.status, 200, "{}", answer.body);
                for record in answer.body["items"].as_array().unwrap() {
                    self.saw(record, asked);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Follows one job after the other, as far as the server lives.
    async fn follow(&self) {
        loop {
            let job = self.promises.lock().last().map(|it| it.submitted.job.clone());
            if let Some(job) = job {
                self.follow_one(&format!("/api/v1/jobs/{job}/$stream?poll_interval=0.02")).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn follow_one(&self, path: &str) {
        let Some(client) = self.server.borrow().clone() else { return };
        let Ok(mut stream) = client.request(Method::GET, path).try_open().await else { return };
        if stream.status != 200 {
            return;
        }
        let mut end = None;
        while let Ok(Ok(Some(event))) = tokio::time::timeout(ANSWER, stream.try_next_event()).await
        {
            let record: Value = serde_json::from_str(&event).unwrap();
            if let Some(end) = &end {
                self.violation(format!("an event after the end:\n{end}\n{record}"));
            }
            end = is_final(&record).then_some(record);
        }
        self.streamed.lock().extend(end);
    }

    /// Remembers a record that was asked for then. One that has ended never changes again.
    fn saw(&self, record: &Value, asked: Instant) {
        let Some(job) = record["id"].as_str() else {
            return self.violation(format!("no record: {record}"));
        };
        let mut seen = self.seen.lock();
        match seen.get(job) {
            // An answer to an earlier question, which came late.
            Some((_, at)) if asked < *at => {}
            Some((before, _)) if is_final(before) => {
                if before != record {
                    self.violation(format!("it had ended and changed:\n{before}\n{record}"));
                }
            }
            _ => drop(seen.insert(job.to_owned(), (record.clone(), Instant::now()))),
        }
    }

    fn violation(&self, what: String) {
        let mut violations = self.violations.lock();
        if violations.len() < 20 {
            violations.push(what);
        }
    }

    /// Whether the server said of a job that it is cancelled.
    pub(super) fn is_canceled(&self, promise: &Promise) -> bool {
        self.canceled.lock().contains(&promise.submitted.job)
    }

    /// The last record of a promised job.
    pub(super) fn record(&self, promise: &Promise) -> Value {
        self.seen.lock()[&promise.submitted.job].0.clone()
    }
}

/// A file that is predicted for, and comes back as it is.
pub(super) fn file(key: &str) -> String {
    let rows: String = (1..=3).map(|it| format!("2026-0{it},{key},1.5\r\n")).collect();
    format!("time_period,location,sample_0\r\n{rows}")
}

/// Whether nothing may change any more.
pub(super) fn is_final(record: &Value) -> bool {
    !matches!(text(&record["status"]).as_str(), "pending" | "running")
}
