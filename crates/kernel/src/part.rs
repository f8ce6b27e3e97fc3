//! What a slice brings to the running service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::{Caller, Conn, Failure, Kind, Permission, Scope, Time, Ulid};

/// Everything the assembly needs to know about a slice, collected in one value.
#[derive(Default)]
pub struct Part {
    /// What the slice is called in logs.
    pub name: &'static str,
    /// Its HTTP routes with their documentation.
    pub routes: OpenApiRouter,
    /// What its health depends on.
    pub health: Vec<HealthCheck>,
    /// The kinds of work that it does after the answer.
    pub work: Vec<Work>,
    /// What of it can be scheduled.
    pub launchers: Vec<Launcher>,
    /// What it counts for the operator.
    pub counters: Vec<Counter>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How well something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Healthy,
    /// Works, but somebody should look.
    Degraded,
    /// Does not work.
    Unhealthy,
}

/// The answer of a check: a state, and a sentence when there is something to say.
pub type Checked = (Health, Option<String>);

/// A named question about health, asked at most once a second however many clients ask.
#[derive(Clone)]
pub struct HealthCheck {
    /// The key in `checks`.
    pub name: &'static str,
    /// Asks.
    pub ask: Arc<dyn Fn() -> BoxFuture<'static, Checked> + Send + Sync>,
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthCheck").field(&self.name).finish()
    }
}

/// A number that only grows, read when the metrics are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counter {
    /// The name in the metrics, such as `ml_train_jobs_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    value: Arc<AtomicU64>,
}

impl Counter {
    /// A counter at zero.
    pub fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: Arc::default() }
    }

    /// Counts one.
    pub fn increment(&self) {
        self.value.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// A kind of work that is done after the answer, as a job.
#[derive(Clone)]
pub struct Work {
    /// `slice.verb`, such as `ml.train`.
    pub kind: &'static str,
    /// The queue that its jobs wait in unless they say another, such as `train`.
    pub queue: &'static str,
    /// What whoever asks for it once more must be permitted, as whoever asked for it first.
    pub permission: Permission,
    /// How often and how long it is tried.
    pub policy: Policy,
    /// Does it, and records its end in the transaction that stores what came of it. A failure that
    /// it returns is recorded by whoever asked.
    pub run: Arc<dyn Fn(Assignment) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Work").field(&self.kind).finish()
    }
}

/// How often and how long jobs of a kind are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all when they fail for a reason that may pass; at least 1.
    pub max_attempts: u32,
    /// The longest pause before the second attempt. Each further pause may be twice as long as the
    /// one before, and each is a random part of what it may be ("full jitter"), so that those that
    /// failed together do not come back together.
    pub backoff: Duration,
    /// No pause is longer.
    pub max_backoff: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Option<Duration>,
    /// How long all of it may take, from when it was asked for.
    pub deadline: Option<Duration>,
}

impl Default for Policy {
    /// Three attempts, a second or two apart, as long as they take.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(60),
            attempt_timeout: None,
            deadline: None,
        }
    }
}

/// One job, handed to the slice that knows its kind.
#[derive(Debug)]
pub struct Assignment {
    /// The job's id.
    pub job: Ulid,
    /// Which claim of the job this is: what is written in the name of an earlier one is refused.
    pub token: i64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether there will be no other if it fails for a reason that may pass.
    pub is_last: bool,
    /// On whose behalf.
    pub caller: Caller,
    /// What was asked for, as it was submitted.
    pub input: Vec<u8>,
    /// The id that the result is to have, when it was promised beforehand.
    pub artifact: Option<Ulid>,
    /// Cancelled when nobody wants the result any more, or the process stops.
    pub cancel: CancellationToken,
}

/// How far work has come, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// From 0 to 1.
    #[serde(default)]
    pub fraction: Option<f64>,
    /// What is being done.
    #[serde(default)]
    pub message: Option<String>,
    /// Whatever is counted, such as epochs.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub counters: BTreeMap<String, f64>,
}

impl Progress {
    /// Bytes of a message; of a longer one only the beginning is told.
    pub const MESSAGE_BYTES: usize = 1 << 10;
    /// How many things one job counts.
    pub const COUNTERS: usize = 64;
    /// Bytes of the name of something that is counted.
    pub const COUNTER_BYTES: usize = 64;
}

/// Work that did not come to its end.
#[derive(Debug)]
pub struct Failed {
    /// `Type: sentence`, as the contract's clients read it.
    pub error: String,
    /// Where it came from, line by line.
    pub traceback: Option<String>,
    /// What is to become of the job.
    pub verdict: Verdict,
}

/// What is to become of a job whose attempt did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would fail again.
    Permanent,
    /// It may go well later.
    Transient,
    /// Nothing failed: it goes on at that time.
    Suspended(Time),
}

impl Failed {
    /// A failure in the words of the contract, which would happen again.
    pub fn new(kind: &str, message: impl fmt::Display) -> Self {
        let error = format!("{kind}: {message}");
        Self { error, traceback: None, verdict: Verdict::Permanent }
    }

    /// A failure of which `error` says all.
    pub fn told(error: String) -> Self {
        Self { error, traceback: None, verdict: Verdict::Permanent }
    }

    /// The same, but it may go well later.
    #[must_use]
    pub fn transient(self) -> Self {
        Self { verdict: Verdict::Transient, ..self }
    }

    /// No failure: the job goes on at `time`.
    pub fn suspended(time: Time) -> Self {
        let error = format!("Suspended: until {time}");
        Self { error, traceback: None, verdict: Verdict::Suspended(time) }
    }
}

impl From<Failure> for Failed {
    fn from(it: Failure) -> Self {
        // The log has the source; the record is for clients.
        match it.kind() {
            Kind::Internal | Kind::Unavailable => {
                tracing::error!(code = it.code(), failure = %it, "a job failed");
            }
            _ => tracing::info!(code = it.code(), failure = %it, "a job failed"),
        }
        let failed = Self::new("RuntimeError", it.detail());
        match it.kind() {
            Kind::Unavailable | Kind::Exhausted => failed.transient(),
            _ => failed,
        }
    }
}

/// A way to begin work that was written down beforehand, for schedules.
#[derive(Clone)]
pub struct Launcher {
    /// What it begins: a kind of [`Work`], such as `task.execute`.
    pub kind: &'static str,
    /// What whoever writes it down must be permitted.
    pub permission: Permission,
    /// Whether what was written down can be read; asked when it is written.
    pub check: Check,
    /// Submits a job in the transaction of whoever begins it. Only one job with the same
    /// [`Launch::unique`] waits at a time.
    pub launch: Begin,
}

/// Whether what was written down can be read.
pub type Check = Arc<dyn Fn(&Value) -> Result<(), Failure> + Send + Sync>;

/// Submits a job in somebody's transaction, and gives its id.
pub type Begin = Arc<
    dyn for<'c> Fn(&'c mut Conn, &'c Scope, Launch) -> BoxFuture<'c, Result<Ulid, Failure>>
        + Send
        + Sync,
>;

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Launcher").field(&self.kind).finish()
    }
}

/// What a [`Launcher`] begins.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What was written down.
    pub input: Value,
    /// When a job with the same key waits already, it is that job.
    pub unique: Option<String>,
    /// Who the job's record names.
    pub owner: String,
    /// How it is to be done. It has a label, and no name of a request: that is the business of whoever
    /// begins it.
    pub wishes: Wishes,
}

/// How whoever asks for a job wants it to be done. What is not said is as its kind has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What the client called its request.
    pub request: Option<RequestKey>,
    /// What somebody calls it.
    pub label: Option<String>,
    /// The queue to wait in.
    pub queue: Option<String>,
    /// Those with a higher one go first; 0 unless given.
    pub priority: Option<i64>,
    /// Not to be begun before.
    pub run_at: Option<Time>,
    /// How long all of it may take, from when it was asked for, or may be begun.
    pub deadline: Option<Duration>,
    /// Attempts in all when they fail for a reason that may pass.
    pub max_attempts: Option<i64>,
}

/// What a client calls a request, so that it may send it again without asking for the same twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The client's name for it.
    pub name: String,
    /// What the request was, as a hash: another request must not have the same name.
    pub fingerprint: String,
}
