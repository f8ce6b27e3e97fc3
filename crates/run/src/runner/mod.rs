//! Running models: a project's scripts in processes of their own, or Rust functions, each in a
//! workspace that becomes the artifact.
//!
//! A [`Runner`] knows how to train and predict. The caller gives it a [`Run`] (a workspace and a
//! way to stop) and afterwards archives what is in the workspace, also when the script failed.

mod archive;
mod capture;
mod checkpoint;
mod copy;
mod directory;
mod follow;
mod function;
mod inputs;
mod limits;
mod output;
mod process;
mod procfs;
mod progress;
mod shell;
mod template;
mod thread;
mod usage;
mod watcher;
mod workspace;

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use modelyard_kernel::background::on_a_thread;
use modelyard_kernel::{Failed, Ulid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

pub(crate) use self::thread::run_on_a_thread;
pub use self::{
    archive::Archive,
    directory::{Kept, Swept},
    function::{
        FunctionRunner, Functions, MODEL_FILE, Model, ModelError, ModelRunner, PredictData,
        TrainData, functions,
    },
    inputs::ConfigFormat,
    limits::{ArchiveLimits, Limits},
    process::{Script, is_withheld, run_script},
    shell::{ShellRunner, ShellSpec},
    template::{PLACEHOLDERS, Template, TemplateError},
    watcher::{Reporter, Stream, Watcher},
    workspace::Workspace,
};
use crate::frame::Frame;

/// What `fuzz/` calls.
#[doc(hidden)]
pub mod strangers {
    pub use super::archive::{extract, unpack};
    pub use super::progress::{News, Told};
}

/// Something that can train and predict. Implemented by [`ShellRunner`] for scripts and by
/// [`ModelRunner`] for Rust code.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Called once before the first run, at the start of the service.
    async fn on_init(&self) -> Result<(), RunError> {
        Ok(())
    }

    /// Called once after the last run, when the service stops.
    async fn on_cleanup(&self) {}

    /// Whether it works in a directory. If not, its workspace exists in memory only.
    fn needs_directory(&self) -> bool {
        true
    }

    /// Trains in an empty workspace. What training made stays in the workspace.
    async fn train(&self, run: &Run, input: TrainInput) -> Result<Trained, RunError>;

    /// Predicts in a workspace that holds the unpacked training archive.
    async fn predict(&self, run: &Run, input: PredictInput) -> Result<Predicted, RunError>;

    /// Whether [`validate_predict`](Runner::validate_predict) looks at what training left. If not,
    /// the caller can save itself the unpacking.
    fn unpacks_to_validate(&self) -> bool {
        false
    }

    /// Checks a training request, in an empty workspace.
    async fn validate_train(
        &self,
        _run: &Run,
        _input: TrainInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        Ok(Vec::new())
    }

    /// Checks a prediction request, in a workspace that holds the unpacked training archive if
    /// [`unpacks_to_validate`](Runner::unpacks_to_validate) says so.
    async fn validate_predict(
        &self,
        _run: &Run,
        _input: PredictInput,
    ) -> Result<Vec<Diagnostic>, RunError> {
        Ok(Vec::new())
    }
}

/// One use of a runner: where its files live, how to stop it, and who hears of it.
#[derive(Debug)]
pub struct Run {
    pub workspace: Workspace,
    pub cancel: CancellationToken,
    /// Hears what the run says while it runs.
    pub watcher: Option<Arc<dyn Watcher>>,
    /// The job that it is for, if it is for one.
    pub job: Option<RunJob>,
}

/// The job that a run is for, as the code of its author knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunJob {
    /// Its id.
    pub id: Ulid,
    /// The same in every attempt at the job, and in no other job: who is asked for something twice
    /// under this name can tell that it was asked before.
    pub idempotency_key: String,
}

impl Run {
    /// A run in a workspace that is there already. Nobody hears of it.
    pub fn new(workspace: Workspace, cancel: CancellationToken) -> Self {
        Self { workspace, cancel, watcher: None, job: None }
    }

    /// The same run, but someone hears what it says.
    #[must_use]
    pub fn with_watcher(self, watcher: Arc<dyn Watcher>) -> Self {
        Self { watcher: Some(watcher), ..self }
    }

    /// The same run, whose author's code knows which job it is for.
    #[must_use]
    pub fn for_job(self, job: RunJob) -> Self {
        Self { job: Some(job), ..self }
    }

    /// A run in a directory of its own, see [`Workspace::create`].
    pub async fn begin(
        root: &Path,
        stage: &'static str,
        cancel: CancellationToken,
    ) -> Result<Self, RunError> {
        let root = root.to_owned();
        let workspace = blocking(move || Workspace::create(&root, stage)).await?;
        Ok(Self::new(workspace, cancel))
    }

    /// A run of a job in a directory of its own, which a later attempt finds again by
    /// [`Run::resume`] once it was [kept](Workspace::keep). Until then it goes away as others do.
    /// What an earlier attempt left is removed.
    pub async fn begin_kept(
        root: &Path,
        job: Ulid,
        cancel: CancellationToken,
    ) -> Result<Self, RunError> {
        let root = root.to_owned();
        let workspace = blocking(move || Workspace::create_keyed(&root, job)).await?;
        Ok(Self::new(workspace, cancel))
    }

    /// The run of an earlier attempt of a job, whose script ended and whose workspace was kept, if
    /// this machine still has it. It stays kept until it is removed or becomes an archive.
    pub async fn resume(
        root: &Path,
        job: Ulid,
        cancel: CancellationToken,
    ) -> Result<Option<Self>, RunError> {
        let root = root.to_owned();
        let workspace = blocking(move || Workspace::resume(&root, job)).await?;
        Ok(workspace.map(|it| Self::new(it, cancel)))
    }
}

/// What a training gets. `config` has been validated and has its defaults filled in.
#[derive(Clone, Debug)]
pub struct TrainInput {
    pub config: Map<String, Value>,
    pub data: Frame,
    /// A `GeoJSON` feature collection.
    pub geo: Option<Value>,
}

/// What a prediction gets. `future` has the rows to predict for, without the target.
#[derive(Clone, Debug)]
pub struct PredictInput {
    pub config: Map<String, Value>,
    pub historic: Frame,
    pub future: Frame,
    /// A `GeoJSON` feature collection.
    pub geo: Option<Value>,
}

/// What a process left behind. Long output keeps its beginning and its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptOutput {
    /// Negative when a signal ended the process: `-9` after `SIGKILL`.
    pub exit_code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl ScriptOutput {
    /// The last lines of the standard error, at most ten, joined by ` | `.
    pub fn stderr_tail(&self) -> Option<String> {
        let lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut tail: Vec<&str> = lines.rev().take(10).collect();
        tail.reverse();
        (!tail.is_empty()).then(|| tail.join(" | "))
    }
}

/// A training that went well. `script` is set when a process did it.
#[derive(Clone, Debug)]
pub struct Trained {
    pub script: Option<ScriptOutput>,
}

/// A prediction that went well. `script` is set when a process did it.
#[derive(Clone, Debug)]
pub struct Predicted {
    pub predictions: Frame,
    pub script: Option<ScriptOutput>,
}

/// One finding of a validation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    pub severity: Severity,
    /// A stable name for programs, like `data_empty`.
    pub code: String,
    pub message: String,
    /// What the finding is about, like `data` or `config.n_lags`.
    #[serde(default)]
    pub field: Option<String>,
}

/// Only an error makes a request invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// The exit code by which a script says that the same may go well later, such as when a server that
/// it needs does not answer: `EX_TEMPFAIL` of `sysexits.h`.
pub const TEMPORARY_FAILURE: i32 = 75;

/// Why a run did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The script said so by its exit code. The workspace is worth keeping.
    #[error("{stage} script failed with exit code {}", output.exit_code)]
    Script { stage: &'static str, output: ScriptOutput },
    /// The model's own code failed. `kind` is like the name of an exception; `may_pass` when it says
    /// that the same may go well later.
    #[error("{kind}: {message}")]
    Model { kind: String, message: String, traceback: Option<String>, may_pass: bool },
    #[error("{stage} script was stopped after {} seconds, its limit", limit.as_secs_f64())]
    TimedOut { stage: &'static str, limit: Duration, output: ScriptOutput },
    /// `limit` names what there was too much of, and how much is allowed.
    #[error("{stage} went over its limit of {limit}")]
    OverLimit { stage: &'static str, limit: String, output: Option<ScriptOutput> },
    #[error("the run was canceled")]
    Canceled,
    /// The archive cannot be used: damaged, or not made by us.
    #[error("the archive is not usable: {0}")]
    Archive(String),
    /// The machine failed, not the model.
    #[error("{doing}: {cause}")]
    Io { doing: String, cause: io::Error },
}

impl RunError {
    /// For `map_err`: what was being done when the error came.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |cause| RunError::Io { doing, cause }
    }

    pub(crate) fn model(kind: &str, message: impl Into<String>) -> Self {
        let (kind, message) = (kind.to_owned(), message.into());
        RunError::Model { kind, message, traceback: None, may_pass: false }
    }

    /// Whether the same may go well later: the script or the model said so, or it is about this
    /// machine.
    pub fn is_transient(&self) -> bool {
        match self {
            RunError::Script { output, .. } => output.exit_code == TEMPORARY_FAILURE,
            RunError::Model { may_pass, .. } => *may_pass,
            RunError::Io { .. } => true,
            RunError::TimedOut { .. }
            | RunError::OverLimit { .. }
            | RunError::Canceled
            | RunError::Archive(_) => false,
        }
    }

    /// What the process had printed, if there was a process.
    pub fn output(&self) -> Option<&ScriptOutput> {
        match self {
            RunError::Script { output, .. } | RunError::TimedOut { output, .. } => Some(output),
            RunError::OverLimit { output, .. } => output.as_ref(),
            RunError::Model { .. }
            | RunError::Canceled
            | RunError::Archive(_)
            | RunError::Io { .. } => None,
        }
    }
}

impl From<io::Error> for RunError {
    /// For errors that name their file themselves.
    fn from(cause: io::Error) -> Self {
        RunError::Io { doing: "the files of a run are not usable".to_owned(), cause }
    }
}

impl From<RunError> for Failed {
    /// A run's error in the words of the contract.
    fn from(error: RunError) -> Self {
        let is_transient = error.is_transient();
        let failed = match error {
            RunError::Model { kind, message, traceback, .. } => {
                Failed { traceback, ..Failed::new(&kind, message) }
            }
            RunError::Canceled => Failed::new("CancelledError", "the job was canceled"),
            RunError::TimedOut { .. } => Failed::new("TimeoutError", error),
            RunError::Io { doing, cause } => {
                // The cause may name paths of this machine.
                tracing::error!(%doing, %cause, "a run failed on this machine");
                Failed::new("OSError", format!("the machine failed: {}", cause.kind()))
            }
            other => Failed::new("RuntimeError", other),
        };
        if is_transient { failed.transient() } else { failed }
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let interrupted = |error| RunError::Io {
        doing: "file work was interrupted".to_owned(),
        cause: io::Error::other(error),
    };
    on_a_thread(work).await.map_err(interrupted)?
}

#[cfg(test)]
mod tests;
