//! Jobs: work that is answered with 202 and done afterwards, one record each.
//!
//! A slice that has such work declares its kinds in its [`Part`] and submits with [`Jobs::submit`]
//! in the transaction of whatever else it changes, or with [`Jobs::add`] when there is nothing else.
//! The work is given an [`Assignment`], makes a [`Context`] of it to do steps and to say how far it
//! is, and records its end with [`Jobs::end`] in the transaction that stores its result.
//!
//! What holds, whatever is killed in between:
//!
//! * A job that was submitted comes to one end, and one only. The record is the truth: whoever works
//!   on a job that was cancelled, or that another process has begun, is refused by the token of its
//!   claim, and stops.
//! * A step that has a result is not done again.
//! * A process that died has its jobs begun again: at once by itself when it is started again, or by
//!   another within five seconds.

mod asking;
mod claims;
mod context;
mod dispatcher;
mod engine;
pub mod http;
mod journal;
mod model;
mod places;
mod pulse;
mod retention;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod together;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Operation};
use modelyard_kernel::db::Dialect;
use modelyard_kernel::event::emit;
use modelyard_kernel::form::choice;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Assignment, Caller, Clock, Conn, Event, Failed, Failure, Kind, Part, Permission, Policy,
    Result, Scope, Time, Ulid, failpoint,
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use asking::MAX_AHEAD;
pub use asking::{Asking, AskingHeaders, AskingParams};
pub use context::{Also, Context};
pub use engine::{Engine, Options, PolicyChange, Workers};
use engine::{Machine, Running};
pub use http::FIELDS;
use model::{Ending, Lane, ToldJob};
pub use model::{Hold, Job, JobId, JobStatus, LogLine, NewJob, Queue, Step, Submission, Timing};
pub use modelyard_kernel::{RequestKey, Wishes};
use store::{Room, Terms};
use together::{Added, Completed};

/// May see jobs.
pub const READ: Permission = Permission("jobs:read");
/// May cancel, retry and remove jobs, and pause queues.
pub const WRITE: Permission = Permission("jobs:write");

/// How long [`Jobs::delete`] waits for a running job to let go.
const LET_GO: Duration = Duration::from_secs(10);

/// How long a count of waiting jobs is believed.
const COUNTED: Duration = Duration::from_secs(1);

/// The jobs of the services of a process: those of whose scope they are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    /// How much waits, as far as this process knows.
    waiting: Mutex<HashMap<Lane, Counted>>,
}

/// How much waited when it was counted, and what was added since.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Instant,
    room: Room,
}

impl Jobs {
    fn new(engine: Engine) -> Self {
        Self(Arc::new(Inner { engine, waiting: Mutex::default() }))
    }

    fn machine(&self) -> &Machine {
        &self.0.engine.0
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "jobs", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// A job as its work sees it.
    ///
    /// # Errors
    /// When whoever the job is done for may not.
    pub fn context(&self, assignment: &Assignment) -> Result<Context> {
        let scope = assignment.caller.permit(WRITE)?.clone();
        let (hold, attempt) = (assignment.into(), assignment.attempt.into());
        Ok(Context::new(self.clone(), scope, hold, attempt, assignment.cancel.clone()))
    }

    /// Adds a job, with a transaction of its own where that needs one, and has it done. Who may is up
    /// to the caller's slice, whose permission gave the scope.
    ///
    /// # Errors
    /// `queue_full` when too many jobs wait; `idempotency_key_reused` when another request had the
    /// same name.
    pub async fn add(&self, scope: &Scope, new: NewJob) -> Result<Submission> {
        let db = &self.machine().db;
        let is_alone = new.wishes.request.is_none() && new.unique.is_none();
        let submitted = if is_alone && db.dialect() == Dialect::Postgres {
            self.submit_together(scope, new).await?
        } else {
            let (it, scope) = (self.clone(), scope.clone());
            let submit = db
                .transaction(move |conn| async move { it.submit(conn, &scope, new).await }.boxed());
            submit.await?
        };
        failpoint::reach("job.submitted");
        self.wake(&submitted);
        Ok(submitted)
    }

    /// Adds a job in one commit with those that are added at the same moment, where that may be.
    async fn submit_together(&self, scope: &Scope, mut new: NewJob) -> Result<Submission> {
        let machine = self.machine();
        let (now, bytes) =
            (machine.clock.now(), i64::try_from(new.input.len()).unwrap_or(i64::MAX));
        let lane = self.admit(scope, &mut new)?;
        let mut conn = machine.db.conn().await?;
        let room = self.may_be_full(&mut conn, scope, &lane, bytes).await?;
        drop(conn);
        if room.is_some() || bytes > store::INLINE {
            let (it, scope) = (self.clone(), scope.clone());
            let submit = machine.db.transaction(move |conn| {
                async move { it.submit_in(conn, &scope, lane, new).await }.boxed()
            });
            return submit.await;
        }
        let (job, artifact, run_at) = (new.id, new.artifact, new.wishes.run_at);
        let terms = self.terms(scope, &new, &lane.queue, None, now);
        let has_deadline = terms.deadline_at.is_some();
        let event = submitted(&machine.clock, &new, &lane.queue);
        let added = Added::new(scope, new, terms, event);
        machine.added.write(&machine.background, &machine.db, added).await?;
        self.note_waiting(&lane, bytes);
        let is_due = run_at.is_none_or(|it| it <= now);
        let lane = (is_due && !has_deadline).then_some(lane);
        Ok(Submission { job, artifact, existed: false, lane })
    }

    /// Refuses what nobody would do, and says where a job is to wait.
    fn admit(&self, scope: &Scope, new: &mut NewJob) -> Result<Lane> {
        let machine = self.machine();
        let latest = machine.clock.now().after(Duration::from_secs(MAX_AHEAD));
        if new.wishes.run_at.is_some_and(|it| it.micros() < 0 || it > latest) {
            let detail = "`run_at` is no earlier than 1970 and at most 366 days ahead";
            return Err(Failure::bad_request("time_invalid", detail));
        }
        let Some(queue) = new.wishes.queue.take() else {
            let home = machine.work(scope.service(), new.kind).map_or("default", |it| it.queue);
            return Ok(Lane::of(scope, home));
        };
        // Nobody may be there to do jobs of a queue of which nobody knows.
        let known = machine.queues(scope.service());
        if known.contains(&*queue) {
            return Ok(Lane::of(scope, &queue));
        }
        let names: Vec<&str> = known.iter().map(|it| &**it).collect();
        let detail = format!("there is no queue `{queue}`, but {}", choice(&names));
        Err(Failure::bad_request("queue_unknown", detail))
    }

    fn terms<'a>(
        &self,
        scope: &Scope,
        new: &NewJob,
        queue: &'a str,
        room: Option<Room>,
        now: Time,
    ) -> Terms<'a> {
        let work = self.machine().work(scope.service(), new.kind);
        let policy = work.map_or_else(Policy::default, |it| it.policy);
        let Wishes { run_at, deadline, max_attempts, .. } = new.wishes;
        let begins = run_at.unwrap_or(now).max(now);
        Terms {
            queue,
            max_attempts: max_attempts.unwrap_or(policy.max_attempts.into()).max(1),
            deadline_at: deadline.or(policy.deadline).map(|it| begins.after(it)),
            room,
            now,
        }
    }

    /// Adds a job, in the transaction of whatever else is changed; call [`Jobs::wake`] after the
    /// commit.
    ///
    /// # Errors
    /// As [`Jobs::add`].
    pub async fn submit(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        mut new: NewJob,
    ) -> Result<Submission> {
        let lane = self.admit(scope, &mut new)?;
        self.submit_in(conn, scope, lane, new).await
    }

    async fn submit_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        lane: Lane,
        mut new: NewJob,
    ) -> Result<Submission> {
        let now = self.machine().clock.now();
        let (job, artifact) = (new.id, new.artifact);
        if let Some(key) = new.wishes.request.take()
            && !store::remember(conn, scope, &key, new.id, new.artifact, now).await?
        {
            return self.asked_before(conn, scope, &key).await;
        }
        let (kind, unique) = (new.kind, new.unique.clone());
        let bytes = i64::try_from(new.input.len()).unwrap_or(i64::MAX);
        let run_at = new.wishes.run_at;
        let room = self.may_be_full(conn, scope, &lane, bytes).await?;
        let terms = self.terms(scope, &new, &lane.queue, room, now);
        let has_deadline = terms.deadline_at.is_some();
        let event = submitted(&self.machine().clock, &new, &lane.queue);
        if store::insert(conn, scope, new, terms).await? {
            emit(conn, scope, event).await?;
            self.note_waiting(&lane, bytes);
            let is_due = run_at.is_none_or(|it| it <= now);
            let lane = (is_due && !has_deadline).then_some(lane);
            return Ok(Submission { job, artifact, existed: false, lane });
        }
        if let Some(key) = unique
            && let Some((job, artifact)) = store::find_unique(conn, scope, kind, &key).await?
        {
            return Ok(Submission::before(job, artifact));
        }
        let queue = &lane.queue;
        Err(Failure::new(
            Kind::Exhausted,
            "queue_full",
            format!("no more jobs may wait in the queue `{queue}`, try again when some are done"),
        ))
    }

    /// The job that an earlier request of the same name asked for, if there was one; for those whose
    /// request is more than [`Jobs::submit`].
    ///
    /// # Errors
    /// `idempotency_key_reused` when that was another request.
    pub async fn asked(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        key: &RequestKey,
    ) -> Result<Option<JobId>> {
        match store::remembered(conn, scope, &key.name).await? {
            Some(_) => Ok(Some(self.asked_before(conn, scope, key).await?.job)),
            None => Ok(None),
        }
    }

    /// Remembers which job a request asked for, in the transaction that adds the job.
    ///
    /// # Errors
    /// `idempotency_key_reused`, or `concurrent_change` when the same is asked at this moment.
    pub async fn remember(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        key: &RequestKey,
        job: JobId,
    ) -> Result<()> {
        let now = self.machine().clock.now();
        if store::remember(conn, scope, key, job, None, now).await? {
            return Ok(());
        }
        self.asked_before(conn, scope, key).await?;
        Err(Failure::conflict("concurrent_change", "the same was asked at this moment, try again"))
    }

    /// The job that a request of the same name asked for.
    async fn asked_before(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        key: &RequestKey,
    ) -> Result<Submission> {
        let before = store::remembered(conn, scope, &key.name).await?;
        match before {
            Some(it) if it.fingerprint == key.fingerprint => {
                Ok(Submission::before(it.job_id, it.artifact_id))
            }
            Some(_) => Err(Failure::new(
                Kind::Invalid,
                "idempotency_key_reused",
                "another request was sent with this Idempotency-Key; give this one a key of its own",
            )),
            // It has expired in this very moment.
            None => Err(Failure::conflict("concurrent_change", "try again")),
        }
    }

    /// Counting what waits takes longer the more there is, so it is done where the limit may be near.
    /// Gives the limits in that case.
    async fn may_be_full(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        lane: &Lane,
        bytes: i64,
    ) -> Result<Option<Room>> {
        let options = &self.machine().options;
        let most = Room { jobs: options.max_pending, bytes: options.max_pending_bytes };
        let known = self.0.waiting.lock().get(lane).copied();
        let known = match known.filter(|it| it.at.elapsed() < COUNTED) {
            Some(known) => known,
            None => {
                let room = store::waiting(conn, scope, &lane.queue).await?;
                let counted = Counted { at: Instant::now(), room };
                let mut all = self.0.waiting.lock();
                if all.len() > 10_000 {
                    all.clear();
                }
                all.insert(lane.clone(), counted);
                counted
            }
        };
        let Room { jobs, bytes: waiting } = known.room;
        let far = jobs < most.jobs / 2 && waiting.saturating_add(bytes) < most.bytes / 2;
        Ok((!far).then_some(most))
    }

    fn note_waiting(&self, lane: &Lane, bytes: i64) {
        if let Some(it) = self.0.waiting.lock().get_mut(lane) {
            it.room.jobs += 1;
            it.room.bytes = it.room.bytes.saturating_add(bytes);
        }
    }

    /// Tells the workers of a job, once it is committed.
    pub fn wake(&self, submitted: &Submission) {
        match &submitted.lane {
            Some(lane) => self.machine().heat(lane.clone()),
            None => self.machine().heat_some(),
        }
    }

    /// Tells the workers that jobs were added somehow.
    pub fn wake_all(&self) {
        self.machine().heat_some();
    }

    /// Records that a running job has ended, in the transaction that stores what came of it: with
    /// `artifact` when it went well, or why it failed. What it said until then is written as well.
    ///
    /// # Errors
    /// `job_canceled` when nobody wants the result any more, or another process has begun the job
    /// meanwhile; the transaction must not commit then.
    pub async fn end(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        hold: Hold,
        outcome: Result<Option<Ulid>, &Failed>,
    ) -> Result<()> {
        let now = self.machine().clock.now();
        let ended = store::finish(conn, scope, hold, Ending::of(outcome), now).await?;
        if ended { Ok(()) } else { Err(context::taken_away()) }
    }

    /// Records that a running job has gone well, when nothing else is to be stored.
    ///
    /// # Errors
    /// As [`Jobs::end`].
    pub async fn complete(&self, scope: &Scope, hold: Hold, artifact: Option<Ulid>) -> Result<()> {
        let machine = self.machine();
        self.flush(scope, hold).await?;
        let now = machine.clock.now();
        let ended = if machine.db.dialect() == Dialect::Postgres {
            let completed = Completed::new(scope, hold, artifact, now);
            machine.completed.write(&machine.background, &machine.db, completed).await?
        } else {
            let mut conn = machine.db.conn().await?;
            store::finish(&mut conn, scope, hold, Ending::of(Ok(artifact)), now).await?
        };
        if ended { Ok(()) } else { Err(context::taken_away()) }
    }

    /// Writes down what a job has said so far; for those who end it themselves.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn flush(&self, scope: &Scope, hold: Hold) -> Result<()> {
        let machine = self.machine();
        match machine.running(hold.job).filter(|it| it.hold == hold) {
            Some(it) => context::flush(machine, scope, hold, &it.reports).await,
            None => Ok(()),
        }
    }

    /// Does something to the database for a job, and waits out an outage: what took hours must not be
    /// lost for want of a moment.
    ///
    /// # Errors
    /// Those of `work`; an outage only when the job is cancelled or the process stops.
    pub async fn patiently<T, F: Future<Output = Result<T>>>(
        &self,
        assignment: &Assignment,
        work: impl FnMut() -> F,
    ) -> Result<T> {
        context::patiently(self.machine(), &assignment.cancel, work).await
    }

    /// Whether a job has not ended yet.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn is_unfinished(&self, conn: &mut Conn, scope: &Scope, id: Ulid) -> Result<bool> {
        Ok(store::unfinished(conn, scope, JobId(id)).await?)
    }

    /// One record.
    ///
    /// # Errors
    /// `job_missing`.
    pub async fn get(&self, caller: &Caller, id: JobId) -> Result<Job> {
        let scope = caller.permit(READ)?;
        let found = store::find(&mut self.machine().db.conn().await?, scope, id).await?;
        found.ok_or_else(|| missing(id))
    }

    /// Records, newest first unless another order is asked for.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Job>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.machine().db.conn().await?, scope, Job::COLUMNS).await?)
    }

    /// The steps that a job has done, in the order in which it did them.
    ///
    /// # Errors
    /// `job_missing`.
    pub async fn steps(&self, caller: &Caller, id: JobId) -> Result<Vec<Step>> {
        let scope = caller.permit(READ)?;
        self.get(caller, id).await?;
        Ok(journal::done(&mut self.machine().db.conn().await?, scope, id).await?)
    }

    /// Up to `most` lines that a job printed, after number `after`.
    ///
    /// # Errors
    /// `job_missing`.
    pub async fn lines(
        &self,
        caller: &Caller,
        id: JobId,
        after: i64,
        most: i64,
    ) -> Result<Vec<LogLine>> {
        let scope = caller.permit(READ)?;
        self.get(caller, id).await?;
        Ok(journal::lines(&mut self.machine().db.conn().await?, scope, id, after, most).await?)
    }

    /// Ends a job that nobody wants any more, and keeps its record. Its state says so at once; whoever
    /// works on it stops within two seconds.
    ///
    /// # Errors
    /// `job_missing`, `precondition_failed`, `job_ended` when it has ended already, and `job_stuck` when
    /// the work does not let go in time.
    pub async fn cancel(&self, caller: &Caller, id: JobId, conditions: &Conditions) -> Result<Job> {
        let scope = caller.permit(WRITE)?.clone();
        let conditions = conditions.clone();
        let clock = self.machine().clock.clone();
        let cancel = self.machine().db.transaction(move |conn| {
            async move {
                let job = store::lock(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                conditions.allow_change(&job.etag())?;
                if job.status.is_final() {
                    let state = job.status.name();
                    let detail = format!("Job {id} has ended already: it is {state}");
                    return Err(Failure::conflict("job_ended", detail));
                }
                store::cancel(conn, &scope, id, clock.now()).await?;
                let canceled = store::find(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                let event = Event::new(&clock, "job.canceled", id).before(&ToldJob::of(&job));
                emit(conn, &scope, event.after(&ToldJob::of(&canceled))).await?;
                Ok((job.status, canceled))
            }
            .boxed()
        });
        let (before, job) = cancel.await?;
        if before == JobStatus::Running {
            self.let_go(&[id]).await?;
        }
        Ok(job)
    }

    /// Tries a dead letter again, as a new job with a result of its own. The old record stays, and is
    /// no dead letter any more. It needs the permission of its kind of work as well.
    ///
    /// # Errors
    /// `job_missing`, `not_a_dead_letter`, `permission_denied`, and as [`Jobs::add`].
    pub async fn retry(&self, caller: &Caller, id: JobId, wishes: Wishes) -> Result<Submission> {
        let scope = caller.permit(WRITE)?.clone();
        let (caller, owner) = (caller.clone(), caller.subject().to_owned());
        let (it, clock) = (self.clone(), self.machine().clock.clone());
        let retry = self.machine().db.transaction(move |conn| {
            async move {
                if let Some(key) = &wishes.request
                    && store::remembered(conn, &scope, &key.name).await?.is_some()
                {
                    return it.asked_before(conn, &scope, key).await;
                }
                let letter = it.bury(conn, &scope, id).await?;
                let work = it.machine().work(scope.service(), &letter.kind).ok_or_else(|| {
                    let detail = format!("this service does no `{}` work any more", letter.kind);
                    Failure::conflict("job_kind_unknown", detail)
                })?;
                caller.permit(work.permission)?;
                let new = NewJob {
                    artifact: letter.promised_id.map(|_| clock.ulid()),
                    owner: Some(owner),
                    retry_of: Some(id.0),
                    wishes: Wishes {
                        label: wishes.label.or(letter.label),
                        queue: wishes.queue.or_else(|| it.known_queue(&scope, letter.queue)),
                        max_attempts: wishes.max_attempts.or(Some(letter.max_attempts)),
                        priority: wishes.priority.or(Some(letter.priority)),
                        ..wishes
                    },
                    ..NewJob::new(JobId::new(&clock), work.kind, letter.input.unwrap_or_default())
                };
                let retried = Event::new(&clock, "job.retried", id);
                emit(conn, &scope, retried.after(&Retry { job_id: new.id })).await?;
                it.submit(conn, &scope, new).await
            }
            .boxed()
        });
        let submitted = retry.await?;
        self.wake(&submitted);
        Ok(submitted)
    }

    /// Takes a job off the list of dead letters; its record stays.
    ///
    /// # Errors
    /// `job_missing`, `not_a_dead_letter`.
    pub async fn discard(&self, caller: &Caller, id: JobId) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let discard = self.machine().db.transaction(move |conn| {
            async move {
                it.bury(conn, &scope, id).await?;
                let event = Event::new(&it.machine().clock, "job.discarded", id);
                Ok(emit(conn, &scope, event).await?)
            }
            .boxed()
        });
        discard.await
    }

    async fn bury(&self, conn: &mut Conn, scope: &Scope, id: JobId) -> Result<store::DeadLetter> {
        if let Some(letter) = store::bury(conn, scope, id).await? {
            return Ok(letter);
        }
        store::find(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        let detail = format!("Job {id} is not among the dead letters");
        Err(Failure::conflict("not_a_dead_letter", detail))
    }

    /// The queues of the service.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn queues(&self, caller: &Caller) -> Result<Vec<Queue>> {
        let scope = caller.permit(READ)?;
        let machine = self.machine();
        let mut queues = store::queues(&mut machine.db.conn().await?, scope).await?;
        for name in machine.queues(scope.service()) {
            if !queues.iter().any(|it| it.name == name) {
                queues.push(Queue::idle(&name));
            }
        }
        for queue in &mut queues {
            queue.concurrency = machine.options.queues.get(&queue.name).copied();
        }
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(queues)
    }

    /// Begins no more jobs of a queue until it is resumed. What runs goes on.
    ///
    /// # Errors
    /// `queue_missing` when nothing waits in a queue of that name, nor ever does by itself.
    pub async fn pause(&self, caller: &Caller, queue: &str) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let machine = self.machine();
        self.known(&scope, queue).await?;
        let (clock, queue) = (machine.clock.clone(), queue.to_owned());
        let pause = machine.db.transaction(move |conn| {
            async move {
                if store::pause(conn, &scope, &queue, clock.now()).await? {
                    emit(conn, &scope, Event::new(&clock, "queue.paused", queue)).await?;
                }
                Ok(())
            }
            .boxed()
        });
        pause.await
    }

    /// Begins jobs of a queue again.
    ///
    /// # Errors
    /// As [`Jobs::pause`].
    pub async fn resume(&self, caller: &Caller, queue: &str) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let machine = self.machine();
        self.known(&scope, queue).await?;
        let lane = Lane::of(&scope, queue);
        let (clock, queue) = (machine.clock.clone(), queue.to_owned());
        let resume = machine.db.transaction(move |conn| {
            async move {
                if store::resume(conn, &scope, &queue).await? {
                    emit(conn, &scope, Event::new(&clock, "queue.resumed", queue)).await?;
                }
                Ok(())
            }
            .boxed()
        });
        resume.await?;
        machine.heat(lane);
        Ok(())
    }

    /// The queue, if it is one of the service; earlier versions may have had others.
    fn known_queue(&self, scope: &Scope, queue: String) -> Option<String> {
        self.machine().queues(scope.service()).contains(&*queue).then_some(queue)
    }

    async fn known(&self, scope: &Scope, queue: &str) -> Result<()> {
        let machine = self.machine();
        let waits = store::queues(&mut machine.db.conn().await?, scope).await?;
        if machine.queues(scope.service()).contains(queue)
            || waits.iter().any(|it| it.name == queue)
        {
            return Ok(());
        }
        Err(Failure::missing("queue_missing", format!("there is no queue `{queue}`")))
    }

    /// Cancels a job if it has not ended, waits until it has let go, and removes its record.
    ///
    /// # Errors
    /// `job_missing`, `precondition_failed`, and `job_stuck` when the work does not let go in time.
    pub async fn delete(&self, caller: &Caller, id: JobId, conditions: &Conditions) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let delete = self.machine().db.transaction(move |conn| {
            async move { it.remove(conn, &scope, id, &conditions).await }.boxed()
        });
        let job = delete.await?;
        if job.status == JobStatus::Running {
            self.let_go(&[id]).await?;
        }
        Ok(())
    }

    /// Without a record nothing can be published, whatever the work still does.
    async fn remove(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: JobId,
        conditions: &Conditions,
    ) -> Result<Job> {
        let job = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&job.etag())?;
        store::delete(conn, scope, id).await?;
        let event = Event::new(&self.machine().clock, "job.deleted", id);
        emit(conn, scope, event.before(&ToldJob::of(&job))).await?;
        Ok(job)
    }

    /// Cancels and removes several jobs; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`], and `job_stuck` when all were removed and the work of one does not let go.
    pub async fn change(&self, caller: &Caller, bulk: Bulk<Infallible>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let atomic = bulk.atomic;
        let ids: Vec<Option<JobId>> = bulk.operations.iter().map(id_of).collect();
        let it = self.clone();
        let remove = bulk.apply(&self.machine().db, move |conn, operation| {
            let (it, scope) = (it.clone(), scope.clone());
            async move {
                let id = match operation {
                    Operation::Delete(id) => JobId(id),
                    Operation::Create(never) | Operation::Update(_, never) => match never {},
                };
                it.remove(conn, &scope, id, &Conditions::default()).await?;
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
            self.let_go(&ids).await?;
            return Ok(changed);
        }
        let let_go = changed.results.iter_mut().zip(ids).map(|(done, id)| async move {
            if let (Ok(_), Some(id)) = (&*done, id)
                && let Err(stuck) = self.let_go(&[id]).await
            {
                *done = Err(stuck);
            }
        });
        join_all(let_go).await;
        Ok(changed)
    }

    /// Has the work on jobs stop whose records say that nobody wants them, and waits until all of it in
    /// this process has.
    async fn let_go(&self, ids: &[JobId]) -> Result<()> {
        let machine = self.machine();
        let mut running: Vec<Running> = machine.running_of(ids).await;
        if running.len() < ids.len()
            && let Err(failure) = machine.tell_others().await
        {
            tracing::warn!(%failure, "another process hears of a cancelled job a moment later");
        }
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
                "the job is cancelled, but its work has not ended yet",
            )),
        }
    }
}

/// Whether a job that has not ended has promised a result under an id, so that nobody else may take it.
///
/// For the slice of results, which needs no handle of the jobs.
///
/// # Errors
/// When the database refuses.
pub async fn is_promised(conn: &mut Conn, scope: &Scope, artifact: Ulid) -> Result<bool> {
    Ok(store::promised(conn, scope, artifact).await?)
}

/// The event of a job that is asked for.
fn submitted(clock: &Clock, new: &NewJob, queue: &str) -> Event {
    Event::new(clock, "job.submitted", new.id).after(&ToldJob::asked(new, queue))
}

/// What an event says of a dead letter that is tried again.
#[derive(Serialize)]
struct Retry {
    job_id: JobId,
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
