//! The job of an execution.

use modelyard_flow::job::JobId;
use modelyard_kernel::{Assignment, Done, Failed, Failure, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::{Captured, Task, TaskId, TaskType};
use super::{EXECUTE, Tasks};
use crate::artifact::{ArtifactId, Draft, NewArtifact};
use crate::runner::{Run, RunError, Script, Workspace, run_script};

/// What a job is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Execution {
    pub(super) task_id: TaskId,
    /// Put over the parameters of the task.
    pub(super) parameters: Option<Map<String, Value>>,
}

/// What came of a task, and the failure of the job when it did not come to its end.
type Outcome = (Value, Option<Failed>);

impl Tasks {
    pub(super) async fn work(&self, assignment: Assignment) -> Result<Done, Failed> {
        let id = assignment.artifact.map(ArtifactId);
        let id =
            id.ok_or_else(|| Failed::new("RuntimeError", "the job has no id for its result"))?;
        let done = Done { artifact: Some(id.0) };
        // An earlier attempt, before a crash, may have come this far.
        if self.inner.artifacts.find(&assignment.caller, id).await?.is_some() {
            return Ok(done);
        }
        let Execution { task_id, parameters } =
            serde_json::from_slice(&assignment.input).map_err(Failure::internal)?;
        let task = self.task(&assignment, task_id).await?;
        let (data, failure) = match task.task_type {
            TaskType::Shell => self.run_command(&task, &assignment, id).await?,
            TaskType::Python => self.call_function(&task, parameters, &assignment).await?,
        };
        self.publish(&assignment, id, data).await?;
        failure.map_or(Ok(done), Err)
    }

    /// The task as it is now, which may not be as it was when the job was submitted.
    async fn task(&self, assignment: &Assignment, id: TaskId) -> Result<Task, Failed> {
        let scope = assignment.caller.permit(EXECUTE)?;
        let mut conn = self.inner.db.conn().await.map_err(Failure::from)?;
        self.ready(&mut conn, scope, id).await.map_err(|failure| match failure.kind() {
            Kind::Invalid => Failed::new("ValueError", failure.detail()),
            Kind::Denied => Failed::new("PermissionError", failure.detail()),
            _ => failure.into(),
        })
    }

    async fn run_command(
        &self,
        task: &Task,
        assignment: &Assignment,
        artifact: ArtifactId,
    ) -> Result<Outcome, Failed> {
        let inner = &self.inner;
        let workspace = Workspace::create(&inner.work_root, "task").map_err(failed)?;
        let run = Run { workspace, cancel: assignment.cancel.clone() };
        let script = Script {
            stage: "task",
            command: &task.command,
            directory: inner.directory.as_deref().unwrap_or_else(|| run.workspace.path()),
            environment: &inner.environment,
            limits: &inner.limits,
        };
        let ended = run_script(script, &run).await;
        run.workspace.remove().await.map_err(failed)?;
        match ended {
            Ok(output) => Ok((task.shell_data(&output), None)),
            Err(error) => {
                // What it printed before it was stopped is worth keeping.
                let data = error.output().map(|it| task.shell_data(it));
                let Some(data) = data else { return Err(failed(error)) };
                let mut failure = failed(error);
                let kept = format!("; artifact {artifact} holds its stdout and stderr");
                failure.error.push_str(&kept);
                Ok((data, Some(failure)))
            }
        }
    }

    async fn call_function(
        &self,
        task: &Task,
        overrides: Option<Map<String, Value>>,
        assignment: &Assignment,
    ) -> Result<Outcome, Failed> {
        let name = &task.command;
        let parameters = task.parameters_with(overrides);
        let given = parameters.clone().unwrap_or_default();
        let called = self.inner.functions.call(name, given, &assignment.cancel).await;
        let called = called.ok_or_else(|| {
            Failed::new("ValueError", format!("Python function '{name}' not found in registry"))
        })?;
        let outcome = match called {
            Ok(result) => Ok(result),
            Err(RunError::Model { kind, message, traceback }) => {
                let traceback = traceback.unwrap_or_else(|| format!("{kind}: {message}"));
                Err(Captured { kind, message, traceback })
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((task.function_data(parameters, outcome), None))
    }

    /// Stores the artifact; nothing when the job was cancelled meanwhile.
    async fn publish(
        &self,
        assignment: &Assignment,
        id: ArtifactId,
        data: Value,
    ) -> Result<(), Failed> {
        let new = NewArtifact { id: Some(id), tags: None, data, parent: Some(None) };
        let draft = self.inner.artifacts.draft(new, None).await?;
        let written = self.write(assignment, &draft).await;
        draft.settle(written.as_ref().err().is_none_or(Failure::is_uncertain)).await;
        Ok(written?)
    }

    async fn write(&self, assignment: &Assignment, draft: &Draft) -> Result<()> {
        let inner = &self.inner;
        let scope = assignment.caller.permit(EXECUTE)?;
        let mut tx = inner.db.begin().await?;
        if !inner.jobs.may_publish(&mut tx, scope, JobId(assignment.job)).await? {
            return Err(Failure::conflict("job_canceled", "the job was canceled"));
        }
        inner.artifacts.insert(&mut tx, scope, draft).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// A run's error in the words of the contract.
fn failed(error: RunError) -> Failed {
    match error {
        RunError::Canceled => Failed::new("CancelledError", "the job was canceled"),
        RunError::TimedOut { .. } => Failed::new("TimeoutError", error),
        RunError::Io { doing, cause } => {
            // The cause may name paths of this machine.
            tracing::error!(%doing, %cause, "a task failed on this machine");
            Failed::new("OSError", format!("the machine failed: {}", cause.kind()))
        }
        other => Failed::new("RuntimeError", other),
    }
}
