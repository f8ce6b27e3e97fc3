//! Tasks: commands and functions that are stored once and run as often as somebody likes.
//!
//! A task is a shell command, in which `{name}` stands for a parameter that is stored with it and
//! becomes one word, or the
//! name of a function that the service registered ([`TaskFunctions`]). Executing it is a job: the
//! task runs as it is when the job's turn comes, and what it printed or returned becomes an artifact.
//! Jobs survive a crash, so a task that was interrupted by one runs again from the beginning.
//!
//! Whoever may write a shell task may run anything that the server's user may. Therefore a service
//! has to allow them, see [`ShellTasks`].

mod command;
mod functions;
pub mod http;
mod model;
mod store;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use modelyard_flow::job::{JobId, Jobs, NewJob, Wishes};
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Done, Operation};
use modelyard_kernel::db::Json;
use modelyard_kernel::event::emit;
use modelyard_kernel::form::{Node, Report};
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Assignment, Caller, Clock, Conn, Db, Event, Failure, Kind, Launch, Launcher, Part, Permission,
    Policy, Result, Scope, Ulid, Work,
};

use serde_json::{Value, json};

use crate::artifact::{Access, ArtifactId, Artifacts};
use crate::publish::Publisher;
use crate::runner::Limits;

use functions::{Missing, sentence};
pub use functions::{TaskContext, TaskFunctions};
use model::complaint_of;
pub use model::{NewExecution, NewTask, Submitted, Task, TaskFunction, TaskId, TaskType};
use store::TaskRow;
use work::Execution;

/// May see tasks.
pub const READ: Permission = Permission("tasks:read");
/// May make, change and remove tasks.
pub const WRITE: Permission = Permission("tasks:write");
/// May execute tasks, with parameters of its own.
pub const EXECUTE: Permission = Permission("tasks:execute");

const EXECUTE_JOB: &str = "task.execute";

/// Whether clients may store and execute shell commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellTasks {
    /// Whoever may write tasks may run anything that the server's user may.
    Allowed,
    /// Functions only.
    Refused,
}

/// What a service's tasks run with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `python` tasks may name.
    pub functions: TaskFunctions,
    /// Whether there are shell commands at all.
    pub shell: ShellTasks,
    /// Where they run, the service's project; without one each runs in an empty directory of its
    /// own.
    pub directory: Option<PathBuf>,
    /// Variables over what they inherit from the server, such as a project's `PATH`.
    pub environment: BTreeMap<String, String>,
    /// For each of them.
    pub limits: Limits,
    /// Where the workspaces of the process are.
    pub work_root: PathBuf,
}

/// The tasks of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    jobs: Jobs,
    artifacts: Artifacts,
    publisher: Publisher,
    options: Options,
}

impl Tasks {
    /// The tasks of a service.
    pub fn new(
        db: Db,
        clock: Clock,
        jobs: Jobs,
        artifacts: Artifacts,
        publisher: Publisher,
        options: Options,
    ) -> Self {
        Self(Arc::new(Inner { db, clock, jobs, artifacts, publisher, options }))
    }

    /// What this slice brings.
    pub fn part(&self, access: Access) -> Part {
        let worker = self.clone();
        let execute = move |it: Assignment| -> BoxFuture<'static, _> {
            let tasks = worker.clone();
            Box::pin(async move { tasks.work(it).await })
        };
        Part {
            name: "tasks",
            routes: http::routes(self.clone(), access),
            launchers: vec![self.launcher()],
            work: vec![Work {
                kind: EXECUTE_JOB,
                queue: "task",
                permission: EXECUTE,
                policy: Policy::default(),
                run: Arc::new(execute),
            }],
            ..Part::default()
        }
    }

    /// A new task. Whether there is a function of its name is not asked: it may come with the next
    /// version of the service.
    ///
    /// # Errors
    /// `task_taken` when its id is, `shell_tasks_disabled`; when a parameter does not fit the function,
    /// or stands where a shell reads no word.
    pub async fn create(&self, caller: &Caller, new: NewTask) -> Result<Task> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let insert = self
            .0
            .db
            .transaction(move |conn| async move { it.insert(conn, &scope, new).await }.boxed());
        insert.await
    }

    async fn insert(&self, conn: &mut Conn, scope: &Scope, new: NewTask) -> Result<Task> {
        self.allow(new.task_type)?;
        self.check(&new, None)?;
        let id = new.id.unwrap_or_else(|| TaskId::new(&self.0.clock));
        let row = self.row(id, new);
        let task = store::insert(conn, scope, row).await?.ok_or_else(|| taken(id))?;
        emit(conn, scope, Event::new(&self.0.clock, "task.created", id).after(&task)).await?;
        Ok(task)
    }

    /// Refuses a task that could not be executed as it is meant. `old` has its parameters when nothing
    /// is said of them.
    fn check(&self, new: &NewTask, old: Option<&Task>) -> Result<()> {
        let stored = new.parameters.as_ref().or(old.and_then(|it| it.parameters.as_ref()));
        let Some(stored) = stored else { return Ok(()) };
        match new.task_type {
            TaskType::Shell if new.command.contains('{') => {
                let parameters = serde_json::from_str(stored.get())?;
                match complaint_of(&new.command, &parameters) {
                    Some(complaint) => Err(violation("command", &json!(new.command), &complaint)),
                    None => Ok(()),
                }
            }
            TaskType::Shell => Ok(()),
            TaskType::Python => {
                // What is missing may come with the request that executes it.
                let parameters = serde_json::from_str(stored.get())?;
                let checked =
                    self.0.options.functions.check(&new.command, &parameters, Missing::Allowed);
                checked.map_err(Failure::violations)
            }
        }
    }

    /// The functions that tasks can run.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn functions(&self, caller: &Caller) -> Result<Vec<TaskFunction>> {
        caller.permit(READ)?;
        let all = self.0.options.functions.signatures();
        let all = all.map(|(name, parameters)| TaskFunction {
            name: name.to_owned(),
            parameters: parameters.clone(),
        });
        Ok(all.collect())
    }

    fn row(&self, id: TaskId, new: NewTask) -> TaskRow {
        let NewTask { id: _, command, task_type, parameters, enabled } = new;
        let parameters = parameters.map(Json);
        TaskRow { id, command, task_type, parameters, enabled, now: self.0.clock.now() }
    }

    /// One task.
    ///
    /// # Errors
    /// `task_missing`.
    pub async fn get(&self, caller: &Caller, id: TaskId) -> Result<Task> {
        let scope = caller.permit(READ)?;
        let found = store::find(&mut self.0.db.conn().await?, scope, id).await?;
        found.ok_or_else(|| missing(id))
    }

    /// Tasks.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Task>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.0.db.conn().await?, scope, Task::COLUMNS).await?)
    }

    /// How many there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn count(&self, caller: &Caller) -> Result<i64> {
        let scope = caller.permit(READ)?;
        Ok(ListQuery::all(&http::FIELDS).count(&mut self.0.db.conn().await?, scope).await?)
    }

    /// Replaces a task; its parameters stay when nothing is said of them.
    ///
    /// # Errors
    /// `task_missing`, `precondition_failed`, and those of [`Tasks::create`].
    pub async fn update(
        &self,
        caller: &Caller,
        id: TaskId,
        new: NewTask,
        conditions: &Conditions,
    ) -> Result<Task> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let replace = self.0.db.transaction(move |conn| {
            async move { it.replace(conn, &scope, id, new, &conditions).await }.boxed()
        });
        replace.await
    }

    async fn replace(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: TaskId,
        new: NewTask,
        conditions: &Conditions,
    ) -> Result<Task> {
        self.allow(new.task_type)?;
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        self.check(&new, Some(&old))?;
        let task = store::update(conn, scope, self.row(id, new)).await?;
        let event = Event::new(&self.0.clock, "task.updated", id);
        emit(conn, scope, event.before(&old).after(&task)).await?;
        Ok(task)
    }

    /// Removes a task. Artifacts of its executions stay.
    ///
    /// # Errors
    /// `task_missing`, `precondition_failed`.
    pub async fn delete(&self, caller: &Caller, id: TaskId, conditions: &Conditions) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let remove = self.0.db.transaction(move |conn| {
            async move { it.remove(conn, &scope, id, &conditions).await }.boxed()
        });
        remove.await
    }

    async fn remove(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: TaskId,
        conditions: &Conditions,
    ) -> Result<()> {
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        store::delete(conn, scope, id).await?;
        emit(conn, scope, Event::new(&self.0.clock, "task.deleted", id).before(&old)).await?;
        Ok(())
    }

    /// Does several changes; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`].
    pub async fn change(&self, caller: &Caller, bulk: Bulk<NewTask>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let step = bulk.apply(&self.0.db, move |conn, operation| {
            let (it, scope) = (it.clone(), scope.clone());
            async move { it.step(conn, &scope, operation).await }.boxed()
        });
        step.await
    }

    async fn step(&self, conn: &mut Conn, scope: &Scope, operation: Operation<NewTask>) -> Done {
        let none = Conditions::default();
        match operation {
            Operation::Create(new) => Applied::created(&self.insert(conn, scope, new).await?),
            Operation::Update(id, new) => {
                Applied::updated(&self.replace(conn, scope, TaskId(id), new, &none).await?)
            }
            Operation::Delete(id) => {
                self.remove(conn, scope, TaskId(id), &none).await?;
                Ok(Applied::Deleted)
            }
        }
    }

    /// Asks for a task to be executed.
    ///
    /// # Errors
    /// When there is no such task, it is disabled, or does not take the parameters that it was given;
    /// `shell_tasks_disabled`; `queue_full` when too many jobs wait.
    pub async fn execute(
        &self,
        caller: &Caller,
        id: TaskId,
        execution: NewExecution,
        wishes: Wishes,
    ) -> Result<Submitted> {
        let scope = caller.permit(EXECUTE)?.clone();
        let owner = caller.subject().to_owned();
        let NewExecution { parameters } = execution;
        let execution = Execution { task_id: id, parameters };
        let it = self.clone();
        let submit = self.0.db.transaction(move |conn| {
            async move {
                let new = it.job(conn, &scope, execution).await?;
                let new = NewJob { owner: Some(owner), wishes, ..new };
                it.0.jobs.submit(conn, &scope, new).await
            }
            .boxed()
        });
        let submitted = submit.await?;
        self.0.jobs.wake(&submitted);
        Ok(Submitted::new(submitted.job.0))
    }

    /// The job of an execution, if that may be.
    async fn job(&self, conn: &mut Conn, scope: &Scope, execution: Execution) -> Result<NewJob> {
        let id = execution.task_id;
        let task = self.ready(conn, scope, id).await?;
        let overrides = execution.parameters.as_ref().filter(|it| !it.is_empty());
        if task.task_type == TaskType::Shell
            && let Err(complaint) = task.command_with(task.parameters_with(None).as_ref())
        {
            let detail = format!("Task {id}: {complaint}");
            return Err(Failure::bad_request("command_unsafe", detail));
        }
        if let Some(overrides) = overrides.filter(|_| task.task_type == TaskType::Shell) {
            if task.parameters.is_none() {
                return Err(Failure::bad_request(
                    "parameters_unused",
                    format!("Task {id} is a shell command without parameters"),
                ));
            }
            if let Some(complaint) = task.complaint(overrides) {
                let detail = format!("Task {id}: {complaint}");
                return Err(Failure::bad_request("parameters_invalid", detail));
            }
        }
        // Without parameters of its own a request is the contract's, to which the job answers.
        if let Some(overrides) = overrides.filter(|_| task.task_type == TaskType::Python) {
            let given = task.parameters_with(Some(overrides.clone())).unwrap_or_default();
            let (name, given) = (&task.command, Value::Object(given));
            let checked = self.0.options.functions.check(name, &given, Missing::Refused);
            checked.map_err(|it| {
                let detail = format!("Task {id}: {}", sentence(&it));
                Failure::bad_request("parameters_invalid", detail)
            })?;
        }
        let input = serde_json::to_vec(&execution)?;
        let artifact = Some(ArtifactId::new(&self.0.clock).0);
        Ok(NewJob { artifact, ..NewJob::new(JobId::new(&self.0.clock), EXECUTE_JOB, input) })
    }

    /// How a schedule executes a task: its input is `{"task_id": …, "parameters": {…}}`.
    fn launcher(&self) -> Launcher {
        let it = self.clone();
        Launcher {
            kind: EXECUTE_JOB,
            permission: EXECUTE,
            check: Arc::new(|input| read_execution(input).map(drop)),
            launch: Arc::new(move |conn, scope, launch| {
                let it = it.clone();
                async move { it.launch(conn, scope, launch).await }.boxed()
            }),
        }
    }

    async fn launch(&self, conn: &mut Conn, scope: &Scope, launch: Launch) -> Result<Ulid> {
        let Launch { input, unique, owner, wishes } = launch;
        let new = self.job(conn, scope, read_execution(&input)?).await?;
        let new = NewJob { owner: Some(owner), unique, wishes, ..new };
        Ok(self.0.jobs.submit(conn, scope, new).await?.job.0)
    }

    /// A task that may be executed now.
    async fn ready(&self, conn: &mut Conn, scope: &Scope, id: TaskId) -> Result<Task> {
        let task = store::find(conn, scope, id)
            .await?
            .ok_or_else(|| Failure::bad_request("task_unknown", format!("Task {id} not found")))?;
        if !task.enabled {
            let detail = format!("Cannot execute disabled task {id}");
            return Err(Failure::bad_request("task_disabled", detail));
        }
        self.allow(task.task_type)?;
        Ok(task)
    }

    fn allow(&self, task_type: TaskType) -> Result<()> {
        match (task_type, self.0.options.shell) {
            (TaskType::Shell, ShellTasks::Refused) => Err(Failure::new(
                Kind::Denied,
                "shell_tasks_disabled",
                "shell tasks are switched off, because whoever may write one may run any command \
                 on the server; the setting `tasks.shell` allows them",
            )),
            _ => Ok(()),
        }
    }
}

/// A rule of ours that a field of a body breaks.
fn violation(field: &str, value: &Value, complaint: &str) -> Failure {
    let report = Report::new();
    Node::at(&["body", field], value, &report).fail_rule(complaint);
    let violations = report.finish().err().unwrap_or_default();
    Failure::violations(violations)
}

fn read_execution(input: &Value) -> Result<Execution> {
    let report = Report::new();
    let execution = Execution::read(Node::at(&["body", "target", "input"], input, &report));
    report.finish().map_err(Failure::violations)?;
    execution.ok_or_else(|| Failure::internal("an input was refused without a violation"))
}

fn missing(id: TaskId) -> Failure {
    Failure::missing("task_missing", format!("Entity with id {id} not found"))
}

fn taken(id: TaskId) -> Failure {
    Failure::conflict("task_taken", format!("Entity with id {id} already exists"))
}
