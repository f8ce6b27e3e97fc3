//! What a slice brings to the running service.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::{Caller, Ulid};

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
    /// Does it, and records its end in the transaction that stores what came of it. A failure that
    /// it returns is recorded by whoever asked.
    pub run: Arc<dyn Fn(Assignment) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Work").field(&self.kind).finish()
    }
}

/// One job, handed to the slice that knows its kind.
#[derive(Debug)]
pub struct Assignment {
    /// The job's id.
    pub job: Ulid,
    /// On whose behalf.
    pub caller: Caller,
    /// What was asked for, as it was submitted.
    pub input: Vec<u8>,
    /// The id that the result is to have, when it was promised beforehand.
    pub artifact: Option<Ulid>,
    /// Cancelled when nobody wants the result any more, or the process stops.
    pub cancel: CancellationToken,
}

/// Work that failed.
#[derive(Debug)]
pub struct Failed {
    /// `Type: sentence`, as the contract's clients read it.
    pub error: String,
    /// Where it came from, line by line.
    pub traceback: Option<String>,
}

impl Failed {
    /// A failure in the words of the contract.
    pub fn new(kind: &str, message: impl fmt::Display) -> Self {
        Self { error: format!("{kind}: {message}"), traceback: None }
    }
}

impl From<crate::Failure> for Failed {
    fn from(it: crate::Failure) -> Self {
        // The log has the source; the record is for clients.
        tracing::error!(code = it.code(), failure = %it, "a job failed");
        Self { error: format!("RuntimeError: {}", it.detail()), traceback: None }
    }
}
