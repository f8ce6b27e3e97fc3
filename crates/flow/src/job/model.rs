//! What a job is, and the rules of its life. No I/O in this file.

#![expect(single_use_lifetimes, reason = "in what `ToSchema` derives")]

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::db::{Json, storable};
use modelyard_kernel::{
    Assignment, Failed, Policy, Progress, Scope, Time, Ulid, Wishes, columns, entity_id, words,
};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

entity_id!(
    /// The id of a job.
    JobId
);

words! {
    /// Where a job is in its life.
    JobStatus {
        /// Waits for its turn.
        Pending = "pending",
        /// Is being done.
        Running = "running",
        /// Done.
        Completed = "completed",
        /// Ended with an error.
        Failed = "failed",
        /// Ended because nobody wanted it any more.
        Canceled = "canceled",
    }
}

impl JobStatus {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, JobStatus::Pending | JobStatus::Running)
    }
}

/// The record of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Where it is in its life.
    pub status: JobStatus,
    /// When it was asked for.
    pub submitted_at: Time,
    /// When its present attempt, or the last one, was begun.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Why it failed, in one line; of a job that waits: why its last attempt did.
    pub error: Option<String>,
    /// Why it failed, at length.
    pub error_traceback: Option<String>,
    /// What came of it.
    pub artifact_id: Option<Ulid>,
    /// What kind of work it is, such as `ml.train`.
    pub kind: String,
    /// What somebody calls it.
    pub label: Option<String>,
    /// The queue that it waits in.
    pub queue: String,
    /// Those with a higher one go first.
    pub priority: i64,
    /// Which attempt this is, or was; 0 before the first.
    pub attempt: i64,
    /// Attempts in all when they fail for a reason that may pass.
    pub max_attempts: i64,
    /// Not begun before.
    pub run_at: Option<Time>,
    /// Failed for good if it has not ended by then.
    pub deadline_at: Option<Time>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// The dead letter that this is another try of.
    pub retry_of: Option<Ulid>,
    /// Whether it failed and somebody should look.
    pub dead_letter: bool,
    /// How far it has come.
    pub progress: Option<Json<Reported>>,
    /// The last lines that it printed.
    pub log_tail: Option<Json<Vec<String>>>,
    /// Changes with every change of the record.
    pub revision: i64,
}

columns!(Job: id, status, submitted_at, started_at, finished_at, error, error_traceback,
    artifact_id, kind, label, queue, priority, attempt, max_attempts, run_at, deadline_at, owner,
    retry_of, dead_letter, progress, log_tail, revision);

/// Progress, and when it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    #[serde(flatten)]
    pub(super) progress: Progress,
    /// In microseconds since 1970.
    pub(super) at: i64,
}

/// How a record looks on the wire: the contract's keys, then ours.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
struct Wire<'a> {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    id: JobId,
    /// Where it is in its life.
    status: JobStatus,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    submitted_at: Time,
    /// When its present attempt, or the last one, was begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
    /// Why it failed, in one line; of a job that waits: why its last attempt did.
    error: Option<&'a str>,
    /// Why it failed, at length.
    error_traceback: Option<&'a str>,
    /// What came of it.
    #[schema(value_type = Option<String>)]
    artifact_id: Option<Ulid>,
    /// What kind of work it is, such as `ml.train`.
    kind: &'a str,
    /// What somebody calls it.
    label: Option<&'a str>,
    /// The queue that it waits in.
    queue: &'a str,
    /// Those with a higher one go first.
    priority: i64,
    /// Which attempt this is, or was; 0 before the first.
    attempt: i64,
    /// Attempts in all when they fail for a reason that may pass.
    max_attempts: i64,
    /// Not begun before.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Time>,
    /// Failed for good if it has not ended by then.
    #[schema(value_type = Option<String>, format = DateTime)]
    deadline_at: Option<Time>,
    /// Who asked for it.
    owner: Option<&'a str>,
    /// The dead letter that this is another try of.
    #[schema(value_type = Option<String>)]
    retry_of: Option<Ulid>,
    /// Whether it failed and somebody should look.
    dead_letter: bool,
    /// How far it has come.
    progress: Option<ShownProgress<'a>>,
    /// The last lines that it printed.
    log_tail: &'a [String],
    /// How long it took.
    timing: Timing,
}

/// How far a job has come.
#[derive(Serialize, ToSchema)]
struct ShownProgress<'a> {
    #[serde(flatten)]
    progress: &'a Progress,
    /// When it said so.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// How long it may still take from then on, if it goes on as before.
    eta_seconds: Option<f64>,
}

/// How long a job took, in milliseconds; null where that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Timing {
    /// From when it was asked for until its present attempt, or the last one, was begun.
    pub waited_ms: Option<f64>,
    /// The last attempt, when it has ended.
    pub ran_ms: Option<f64>,
    /// From when it was asked for until its end.
    pub total_ms: Option<f64>,
}

impl Job {
    /// Its entity tag.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.id, self.revision)
    }

    /// How long it took.
    pub fn timing(&self) -> Timing {
        let between = |from: Option<Time>, to: Option<Time>| {
            let duration = to?.since(from?);
            Some(duration.as_secs_f64() * 1000.0)
        };
        let asked = Some(self.submitted_at);
        Timing {
            waited_ms: between(asked, self.started_at),
            ran_ms: between(self.started_at, self.finished_at),
            total_ms: between(asked, self.finished_at),
        }
    }

    fn shown_progress(&self) -> Option<ShownProgress<'_>> {
        let Json(Reported { progress, at }) = self.progress.as_ref()?;
        let updated_at = Time::from_micros(*at);
        let running = self.status == JobStatus::Running;
        let so_far = self.started_at.filter(|_| running).map(|it| updated_at.since(it));
        let eta_seconds = progress.fraction.zip(so_far).and_then(|(fraction, so_far)| {
            let left = so_far.as_secs_f64() * (1.0 - fraction) / fraction;
            left.is_finite().then_some(left)
        });
        Some(ShownProgress { progress, updated_at, eta_seconds })
    }
}

impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            id: self.id,
            status: self.status,
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            error: self.error.as_deref(),
            error_traceback: self.error_traceback.as_deref(),
            artifact_id: self.artifact_id,
            kind: &self.kind,
            label: self.label.as_deref(),
            queue: &self.queue,
            priority: self.priority,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            run_at: self.run_at,
            deadline_at: self.deadline_at,
            owner: self.owner.as_deref(),
            retry_of: self.retry_of,
            dead_letter: self.dead_letter,
            progress: self.shown_progress(),
            log_tail: self.log_tail.as_ref().map_or(&[], |it| it.0.as_slice()),
            timing: self.timing(),
        }
        .serialize(serializer)
    }
}

impl utoipa::PartialSchema for Job {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Wire::schema()
    }
}

impl ToSchema for Job {
    fn name() -> std::borrow::Cow<'static, str> {
        Wire::name()
    }

    fn schemas(
        schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>,
    ) {
        Wire::schemas(schemas);
    }
}

/// Work to be done.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, made by whoever promises it to a client.
    pub id: JobId,
    /// The kind, which a slice has registered.
    pub kind: &'static str,
    /// What is to be done, for that slice to read.
    pub input: Vec<u8>,
    /// The id that the result will have.
    pub artifact: Option<Ulid>,
    /// Who asked for it.
    pub owner: Option<String>,
    /// While a job of the same kind and with the same key waits, there is no other.
    pub unique: Option<String>,
    /// The dead letter that this is another try of.
    pub retry_of: Option<Ulid>,
    /// How it is to be done.
    pub wishes: Wishes,
}

impl NewJob {
    /// Work of a kind, to be done as soon as may be.
    pub fn new(id: JobId, kind: &'static str, input: Vec<u8>) -> Self {
        let (artifact, owner, unique, retry_of) = (None, None, None, None);
        Self { id, kind, input, artifact, owner, unique, retry_of, wishes: Wishes::default() }
    }
}

/// What events say of a job: not what is to be done, which may be large and anybody's data.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ToldJob {
    kind: String,
    queue: String,
    label: Option<String>,
    priority: i64,
    run_at: Option<Time>,
    artifact_id: Option<Ulid>,
    retry_of: Option<Ulid>,
    status: JobStatus,
}

impl ToldJob {
    /// A job that is asked for.
    pub(super) fn asked(new: &NewJob, queue: &str) -> Self {
        Self {
            kind: new.kind.to_owned(),
            queue: queue.to_owned(),
            label: new.wishes.label.clone(),
            priority: new.wishes.priority.unwrap_or(0),
            run_at: new.wishes.run_at,
            artifact_id: new.artifact,
            retry_of: new.retry_of,
            status: JobStatus::Pending,
        }
    }

    /// A job as it is.
    pub(super) fn of(job: &Job) -> Self {
        Self {
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            label: job.label.clone(),
            priority: job.priority,
            run_at: job.run_at,
            artifact_id: job.artifact_id,
            retry_of: job.retry_of,
            status: job.status,
        }
    }
}

/// What became of a [`NewJob`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The job.
    pub job: JobId,
    /// The id that its result will have.
    pub artifact: Option<Ulid>,
    /// Whether it was there before.
    pub existed: bool,
    /// Where it waits, when that is all that a dispatcher has to know of it.
    pub(super) lane: Option<Lane>,
}

impl Submission {
    /// A job that was there before.
    pub(super) fn before(job: JobId, artifact: Option<Ulid>) -> Self {
        Self { job, artifact, existed: true, lane: None }
    }
}

/// A claim on a job: what is written in its name counts as long as nobody else has claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    /// The job.
    pub job: JobId,
    /// Which claim.
    pub token: i64,
}

impl From<&Assignment> for Hold {
    fn from(it: &Assignment) -> Self {
        Self { job: JobId(it.job), token: it.token }
    }
}

/// Jobs that wait for one another: those of one queue of one service of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) tenant: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) queue: Arc<str>,
}

impl Lane {
    pub(super) fn of(scope: &Scope, queue: &str) -> Self {
        let (tenant, service) = (scope.tenant().into(), scope.service().into());
        Self { tenant, service, queue: queue.into() }
    }

    /// As the database has it; the last two have no `/` in them.
    pub(super) fn key(&self) -> String {
        let Self { tenant, service, queue } = self;
        format!("{tenant}/{service}/{queue}")
    }
}

/// A job that was claimed for running.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) input: Option<Vec<u8>>,
    pub(super) input_bytes: i64,
    pub(super) promised_id: Option<Ulid>,
    pub(super) token: i64,
    pub(super) attempt: i64,
    pub(super) max_attempts: i64,
    pub(super) lost: i64,
    pub(super) deadline_at: Option<Time>,
    revision: i64,
    priority: i64,
    run_at: Option<Time>,
}

columns!(Claimed: id, kind, input, input_bytes, promised_id, token, attempt, max_attempts, lost,
    deadline_at, revision, priority, run_at);

impl Claimed {
    /// Where it stands among those that were claimed with it.
    pub(super) fn turn(&self) -> (Reverse<i64>, Option<Time>, JobId) {
        (Reverse(self.priority), self.run_at, self.id)
    }

    /// Whether nobody has claimed it before.
    pub(super) fn is_fresh(&self) -> bool {
        self.revision <= 1
    }
}

/// A job that ends the process each time is given up after as many times.
pub(super) const MAX_LOST: i64 = 20;

/// The longest pause before attempt `failed` + 1, see [`Policy::backoff`].
pub(super) fn longest_pause(policy: &Policy, failed: i64) -> Duration {
    let doublings = u32::try_from(failed.saturating_sub(1).clamp(0, 30)).unwrap_or(0);
    policy.backoff.saturating_mul(1 << doublings).min(policy.max_backoff)
}

/// A line that a job printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number, from 1.
    pub seq: i64,
    /// When, in microseconds since 1970.
    pub at: i64,
    /// `stdout`, `stderr` or `system`.
    pub stream: String,
    /// The line, without its end.
    pub text: String,
}

/// A step that a job has done.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// In which attempt it was done.
    pub attempt: i64,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Time,
    /// When its result was written.
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Time,
}

columns!(Step: name, attempt, started_at, finished_at);

/// A queue of a service.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Queue {
    /// What it is called.
    pub name: String,
    /// Whether jobs of it are begun at present.
    pub paused: bool,
    /// How many jobs wait.
    pub pending: i64,
    /// How many are being done.
    pub running: i64,
    /// How many jobs of it this process does at a time; null when only the service bounds it.
    pub concurrency: Option<usize>,
}

impl Queue {
    pub(super) fn idle(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, paused: false, pending: 0, running: 0, concurrency: None }
    }
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: JobStatus,
    pub(super) artifact: Option<Ulid>,
    pub(super) error: Option<String>,
    pub(super) traceback: Option<String>,
}

impl Ending {
    pub(super) fn of(outcome: Result<Option<Ulid>, &Failed>) -> Self {
        match outcome {
            Ok(artifact) => {
                Self { status: JobStatus::Completed, artifact, error: None, traceback: None }
            }
            Err(failed) => {
                let (error, traceback) = told(failed);
                let (status, artifact) = (JobStatus::Failed, None);
                Self { status, artifact, error: Some(error), traceback: Some(traceback) }
            }
        }
    }
}

/// A failure as a record keeps it: in one line, and at length.
pub(super) fn told(failed: &Failed) -> (String, String) {
    let Failed { error, traceback, verdict: _ } = failed;
    (storable(error), storable(traceback.as_ref().unwrap_or(error)))
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::db::{FromValue, Value};

    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let policy = Policy::default();
        let pauses: Vec<u64> =
            (1..=7).map(|failed| longest_pause(&policy, failed).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(longest_pause(&policy, i64::MAX), policy.max_backoff);
    }

    #[test]
    fn every_status_is_read_back_from_its_name() {
        for name in JobStatus::NAMES {
            let status = JobStatus::from_value(Value::from(*name)).unwrap();
            assert_eq!(status.name(), *name);
        }
    }
}
