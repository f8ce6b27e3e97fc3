//! Jobs: work that is answered with 202 and done afterwards, one record each.
//!
//! A slice that has such work declares its kinds in its [`Part`] and submits with [`Jobs::submit`]
//! in the transaction of whatever else it changes. Records and inputs are rows, so a restart loses
//! nothing: what waited still waits, and what was interrupted is done again from the beginning.

pub mod http;
mod model;
mod store;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Operation};
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Background, Caller, Clock, Conn, Db, Failed, Failure, Kind, Part, Permission, Result, Scope,
    Ulid, Work,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use http::FIELDS;
use model::Ending;
pub use model::{Job, JobId, JobStatus, NewJob};

/// May see jobs.
pub const READ: Permission = Permission("jobs:read");
/// May cancel and remove jobs.
pub const WRITE: Permission = Permission("jobs:write");

/// How long [`Jobs::delete`] waits for a running job to let go.
const LET_GO: Duration = Duration::from_secs(10);

/// How many jobs a service does at a time, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Jobs at a time.
    pub concurrency: usize,
    /// Jobs that may wait; more are refused with 429.
    pub max_pending: i64,
    /// How long a stop waits for running jobs before it interrupts them.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 1, max_pending: 1000, drain: Duration::from_secs(10) }
    }
}

/// The jobs of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    background: Background,
    /// Who this process is, the same after a restart.
    node: String,
    options: Options,
    system: Caller,
    kinds: OnceLock<HashMap<&'static str, Work>>,
    /// Held from before a job is claimed until it is in `running`: whoever deletes it then knows
    /// where to find it.
    claiming: tokio::sync::Mutex<()>,
    running: Mutex<HashMap<JobId, Running>>,
    wake: Notify,
}

#[derive(Clone, Debug)]
struct Running {
    cancel: CancellationToken,
    ended: watch::Receiver<bool>,
}

impl Jobs {
    /// The jobs of the service that `system` acts for. `node` names this process, and stays the
    /// same when it is started again.
    pub fn new(
        db: Db,
        clock: Clock,
        background: Background,
        node: String,
        options: Options,
        system: Caller,
    ) -> Self {
        Self(Arc::new(Inner {
            db,
            clock,
            background,
            node,
            options,
            system,
            kinds: OnceLock::new(),
            claiming: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            wake: Notify::new(),
        }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "jobs", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Begins to do jobs: first those that this node was doing when it was last stopped or killed.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn start(&self, work: impl IntoIterator<Item = Work>) -> Result<()> {
        let kinds = work.into_iter().map(|it| (it.kind, it)).collect();
        let _started_twice = self.0.kinds.set(kinds);
        let scope = self.0.system.permit(WRITE)?;
        let mut conn = self.0.db.conn().await?;
        let interrupted = store::requeue_node(&mut conn, scope, &self.0.node).await?;
        if interrupted > 0 {
            tracing::info!(interrupted, service = scope.service(), "jobs are begun again");
        }
        for _ in 0..self.0.options.concurrency.max(1) {
            self.0.background.spawn(worker::run(self.clone()));
        }
        Ok(())
    }

    /// Adds a job, in the transaction of whatever else is changed; call [`Jobs::wake`] after the
    /// commit. Who may is up to the caller's slice, whose permission gave the scope.
    ///
    /// # Errors
    /// `queue_full` when too many jobs wait.
    pub async fn submit(&self, conn: &mut Conn, scope: &Scope, new: NewJob) -> Result<()> {
        let max = self.0.options.max_pending;
        if store::insert(conn, scope, new, max, self.0.clock.now()).await? {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Exhausted,
            "queue_full",
            format!("{max} jobs are waiting already, try again when some are done"),
        ))
    }

    /// Tells the workers that there is something to do.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Records that a running job has ended, in the transaction that stores what came of it: with
    /// `artifact` when it went well, or why it failed.
    ///
    /// # Errors
    /// `job_canceled` when nobody wants the result any more; the transaction must not commit then.
    pub async fn end(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: JobId,
        outcome: Result<Option<Ulid>, &Failed>,
    ) -> Result<()> {
        let ended = store::finish(conn, scope, id, Ending::of(outcome), self.0.clock.now()).await?;
        if ended { Ok(()) } else { Err(Failure::conflict("job_canceled", "the job was canceled")) }
    }

    /// One record.
    ///
    /// # Errors
    /// `job_missing`.
    pub async fn get(&self, caller: &Caller, id: JobId) -> Result<Job> {
        let scope = caller.permit(READ)?;
        let found = store::find(&mut self.0.db.conn().await?, scope, id).await?;
        found.ok_or_else(|| missing(id))
    }

    /// Records, newest first unless another order is asked for.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Job>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.0.db.conn().await?, scope, Job::COLUMNS).await?)
    }

    /// Cancels a job if it has not ended, waits until it has let go, and removes its record.
    ///
    /// # Errors
    /// `job_missing`, `precondition_failed`, and `job_stuck` when the work does not let go in time.
    pub async fn delete(&self, caller: &Caller, id: JobId, conditions: &Conditions) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let conditions = conditions.clone();
        let delete = self.0.db.transaction(move |conn| {
            async move { remove(conn, &scope, id, &conditions).await }.boxed()
        });
        let job = delete.await?;
        if job.status == JobStatus::Running {
            self.cancel(&[id]).await?;
        }
        Ok(())
    }

    /// Cancels and removes several jobs; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`], and `job_stuck` when all were removed and the work of one does not let go.
    pub async fn change(&self, caller: &Caller, bulk: Bulk<Infallible>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let atomic = bulk.atomic;
        let ids: Vec<Option<JobId>> = bulk.operations.iter().map(id_of).collect();
        let remove = bulk.apply(&self.0.db, move |conn, operation| {
            let scope = scope.clone();
            async move {
                let id = match operation {
                    Operation::Delete(id) => JobId(id),
                    Operation::Create(never) | Operation::Update(_, never) => match never {},
                };
                remove(conn, &scope, id, &Conditions::default()).await?;
                Ok(Applied::Deleted)
            }
            .boxed()
        });
        let mut changed = remove.await?;
        if !changed.applied {
            return Ok(changed);
        }
        if atomic {
            let ids: Vec<JobId> = ids.into_iter().flatten().collect();
            self.cancel(&ids).await?;
            return Ok(changed);
        }
        let let_go = changed.results.iter_mut().zip(ids).map(|(done, id)| async move {
            if let (Ok(_), Some(id)) = (&*done, id)
                && let Err(stuck) = self.cancel(&[id]).await
            {
                *done = Err(stuck);
            }
        });
        join_all(let_go).await;
        Ok(changed)
    }

    /// Cancels what runs in this process, and waits until all of it has let go.
    async fn cancel(&self, ids: &[JobId]) -> Result<()> {
        let mut running: Vec<Running> = {
            let _none_between = self.0.claiming.lock().await;
            let running = self.0.running.lock();
            ids.iter().filter_map(|id| running.get(id).cloned()).collect()
        };
        for it in &running {
            it.cancel.cancel();
        }
        let ended = async {
            for it in &mut running {
                // The sender is dropped only after it has sent.
                let _ended = it.ended.wait_for(|ended| *ended).await;
            }
        };
        match tokio::time::timeout(LET_GO, ended).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Failure::new(
                Kind::Unavailable,
                "job_stuck",
                "the job is cancelled and its record removed, but its work has not ended yet",
            )),
        }
    }
}

/// Without a record nothing can be published, whatever the work still does.
async fn remove(conn: &mut Conn, scope: &Scope, id: JobId, conditions: &Conditions) -> Result<Job> {
    let job = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
    conditions.allow_change(&job.etag())?;
    store::delete(conn, scope, id).await?;
    Ok(job)
}

fn id_of(operation: &Result<Operation<Infallible>>) -> Option<JobId> {
    match operation {
        Ok(Operation::Delete(id)) => Some(JobId(*id)),
        _ => None,
    }
}

fn missing(id: JobId) -> Failure {
    Failure::missing("job_missing", format!("Job with id {id} not found"))
}
