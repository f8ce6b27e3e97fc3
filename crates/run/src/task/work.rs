//! The job of an execution.

use std::sync::Arc;

use modelyard_kernel::form::Node;
use modelyard_kernel::{Assignment, Failed, Failure, Kind, Ulid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::{Captured, NewExecution, Task, TaskId, TaskType};
use super::{EXECUTE, TaskContext, Tasks};
use crate::artifact::{ArtifactId, NewArtifact};
use crate::ear::Ear;
use crate::publish::Publication;
use crate::runner::{Reporter, Run, RunError, Script, run_script};

/// The step in which a task runs. Nothing is written down of it: it is done again after a crash.
const RUN: &str = "run";

/// What a job is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Execution {
    pub(super) task_id: TaskId,
    /// Put over the parameters of the task.
    pub(super) parameters: Option<Map<String, Value>>,
}

impl Execution {
    /// Reads what was written down in a schedule.
    pub(super) fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let task_id = object.required("task_id").and_then(|it| it.ulid());
        let task_id = task_id.and_then(|it| Ulid::read(&it)).map(TaskId);
        let NewExecution { parameters } = NewExecution::read(node)?;
        Some(Self { task_id: task_id?, parameters })
    }
}

/// What came of a task, and the failure of the job when it did not come to its end.
type Outcome = (Value, Option<Failed>);

impl Tasks {
    pub(super) async fn work(&self, assignment: Assignment) -> Result<(), Failed> {
        let id = assignment.artifact.map(ArtifactId);
        let id =
            id.ok_or_else(|| Failed::new("RuntimeError", "the job has no id for its result"))?;
        let Execution { task_id, parameters } =
            serde_json::from_slice(&assignment.input).map_err(Failure::internal)?;
        let task = self.task(&assignment, task_id).await?;
        let (data, failed) = match task.task_type {
            TaskType::Shell => self.run_command(&task, parameters, &assignment, id).await?,
            TaskType::Python => self.call_function(&task, parameters, &assignment).await?,
        };
        let new = NewArtifact { id: Some(id), tags: None, data, parent: Some(None) };
        let drafts = vec![self.0.artifacts.draft(new, None).await?];
        let publication = Publication { drafts, link: None, failed };
        Ok(self.0.publisher.publish(&assignment, EXECUTE, publication).await?)
    }

    /// The task as it is now, which may not be as it was when the job was submitted.
    async fn task(&self, assignment: &Assignment, id: TaskId) -> Result<Task, Failed> {
        let scope = assignment.caller.permit(EXECUTE)?;
        let mut conn = self.0.db.conn().await.map_err(Failure::from)?;
        self.ready(&mut conn, scope, id).await.map_err(|failure| match failure.kind() {
            Kind::Invalid => Failed::new("ValueError", failure.detail()),
            Kind::Denied => Failed::new("PermissionError", failure.detail()),
            _ => failure.into(),
        })
    }

    async fn run_command(
        &self,
        task: &Task,
        overrides: Option<Map<String, Value>>,
        assignment: &Assignment,
        artifact: ArtifactId,
    ) -> Result<Outcome, Failed> {
        // The task may have been changed since somebody asked.
        if let Some(complaint) = overrides.as_ref().and_then(|it| task.complaint(it)) {
            return Err(Failed::new("ValueError", complaint));
        }
        let parameters = task.parameters_with(overrides);
        // One that was stored by an earlier version may not be safe.
        let command = task
            .command_with(parameters.as_ref())
            .map_err(|complaint| Failed::new("ValueError", complaint))?;
        // A command that uses none is the contract's, and so is its artifact.
        let parameters = parameters.filter(|_| command != task.command);
        let options = &self.0.options;
        let ear = Ear::new(Arc::new(self.0.jobs.context(assignment)?));
        let run = Run::begin(&options.work_root, "task", assignment.cancel.clone()).await?;
        let run = run.for_job(ear.job(RUN)).with_watcher(Arc::new(ear));
        let own = run.workspace.path()?;
        let script = Script {
            stage: "task",
            command: &command,
            directory: options.directory.as_deref().unwrap_or(own),
            environment: &options.environment,
            limits: &options.limits,
        };
        let ended = run_script(script, &run).await;
        run.workspace.remove().await;
        match ended {
            Ok(output) => Ok((task.shell_data(parameters.as_ref(), &output), None)),
            Err(error) => {
                // What it printed before it was stopped is worth keeping.
                let data = error.output().map(|it| task.shell_data(parameters.as_ref(), it));
                let Some(data) = data else { return Err(error.into()) };
                let mut failure = Failed::from(error);
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
        let ear = Ear::new(Arc::new(self.0.jobs.context(assignment)?));
        let (job, cancel) = (ear.job(RUN), assignment.cancel.clone());
        let context = TaskContext { job, cancel, report: Reporter::new(Some(Arc::new(ear))) };
        let called = self.0.options.functions.call(name, given, context).await;
        let called = called.ok_or_else(|| {
            Failed::new("ValueError", format!("Python function '{name}' not found in registry"))
        })?;
        let outcome = match called {
            Ok(result) => Ok(result),
            Err(RunError::Model { kind, message, traceback, may_pass: false }) => {
                let traceback = traceback.unwrap_or_else(|| format!("{kind}: {message}"));
                Err(Captured { kind, message, traceback })
            }
            Err(error) => return Err(error.into()),
        };
        Ok((task.function_data(parameters, outcome), None))
    }
}
