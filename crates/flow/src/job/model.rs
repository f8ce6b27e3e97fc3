//! What a job is. No I/O in this file.

use modelyard_kernel::db::{FromValue, Value};
use modelyard_kernel::{Failed, Time, Ulid, columns, entity_id};
use serde::Serialize;
use utoipa::ToSchema;

entity_id!(
    /// The id of a job.
    JobId
);

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits for its turn.
    Pending,
    /// Is being done.
    Running,
    /// Done.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended because nobody wanted it any more.
    Canceled,
}

impl JobStatus {
    /// Every state by its name on the wire.
    pub const NAMES: &'static [&'static str] =
        &["pending", "running", "completed", "failed", "canceled"];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Pending => "pending",
            JobStatus::Running => "running",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
            JobStatus::Canceled => "canceled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, JobStatus::Pending | JobStatus::Running)
    }
}

impl From<JobStatus> for Value {
    fn from(it: JobStatus) -> Self {
        it.name().into()
    }
}

impl FromValue for JobStatus {
    fn from_value(value: Value) -> Option<Self> {
        Some(match String::from_value(value)?.as_str() {
            "pending" => JobStatus::Pending,
            "running" => JobStatus::Running,
            "completed" => JobStatus::Completed,
            "failed" => JobStatus::Failed,
            "canceled" => JobStatus::Canceled,
            _ => return None,
        })
    }
}

/// The record of a job.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    pub id: JobId,
    /// Where it is in its life.
    pub status: JobStatus,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Time,
    /// When it was begun; again when it was begun anew after a restart.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    /// Why it failed, in one line.
    pub error: Option<String>,
    /// Why it failed, at length.
    pub error_traceback: Option<String>,
    /// What came of it.
    #[schema(value_type = Option<String>)]
    pub artifact_id: Option<Ulid>,
    /// What kind of work it is, such as `ml.train`.
    pub kind: String,
}

columns!(Job: id, status, submitted_at, started_at, finished_at, error, error_traceback,
    artifact_id, kind);

impl Job {
    /// Its entity tag: a record changes only with its state and when it is begun anew.
    pub fn etag(&self) -> String {
        let begun = self.started_at.map_or(0, Time::micros);
        format!("\"{}-{}-{begun}\"", self.id, self.status.name())
    }
}

/// Work to be done.
#[derive(Debug)]
pub struct NewJob {
    /// Its id, made by whoever promises it to a client.
    pub id: JobId,
    /// The kind, which a slice has registered.
    pub kind: &'static str,
    /// What is to be done, for that slice to read.
    pub input: Vec<u8>,
    /// The id that the result will have.
    pub artifact: Option<Ulid>,
}

/// A job that was claimed for running.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) input: Option<Vec<u8>>,
    pub(super) promised_id: Option<Ulid>,
}

columns!(Claimed: id, kind, input, promised_id);

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
            Err(Failed { error, traceback, .. }) => Self {
                status: JobStatus::Failed,
                artifact: None,
                error: Some(storable(error)),
                traceback: Some(storable(traceback.as_ref().unwrap_or(error))),
            },
        }
    }
}

/// Models and scripts say what they like; PostgreSQL's text holds no zero characters.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_read_back_from_its_name() {
        for name in JobStatus::NAMES {
            let status = JobStatus::from_value(Value::from(*name)).unwrap();
            assert_eq!(status.name(), *name);
        }
    }
}
