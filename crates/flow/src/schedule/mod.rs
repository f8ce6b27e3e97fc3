//! Schedules: jobs that begin by the clock, at the times of a cron expression or of an interval.
//!
//! A slice that has work to be scheduled says how it is begun with a [`Launcher`] in its part. What
//! a schedule is to begin, and with what input, is written down when it is made; the launcher reads
//! it then and once more at each tick.
//!
//! **Each tick fires once**, however many nodes there are and whenever one of them dies: the job,
//! the line of the history and the time of the next tick are written in one transaction, which
//! holds the schedule's row.

pub mod cron;
pub mod http;
mod model;
mod store;
#[cfg(test)]
mod tests;
mod ticker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Done, Operation};
use modelyard_kernel::event::emit;
use modelyard_kernel::form::{choice, quote};
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Background, Caller, Clock, Conn, Db, Event, Failure, Launch, Launcher, Part, Permission,
    Result, Scope, Time, Wishes,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::job::{JobId, Jobs};

pub use http::FIELDS;
pub use model::{
    Begun, GRACE, HISTORY, MAX_CATCH_UP, Misfire, NewSchedule, NewTrigger, Overlap, Run, Schedule,
    ScheduleId, Target, TickOutcome, Trigger, Upcoming,
};
pub use ticker::Looked;

/// May see schedules.
pub const READ: Permission = Permission("schedules:read");
/// May make, change, pause, run and remove schedules. What they begin needs its permission as well.
pub const WRITE: Permission = Permission("schedules:write");

/// The schedules of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedules(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    background: Background,
    system: Caller,
    launchers: BTreeMap<&'static str, Launcher>,
    jobs: Jobs,
    /// Told when another tick may be next.
    changed: Notify,
    /// Since when the next tick of a schedule cannot be begun, for a reason that may pass.
    troubled: Mutex<HashMap<ScheduleId, Time>>,
}

impl Schedules {
    /// The schedules of the service that `system` acts for, which begin what `launchers` can, as `jobs`.
    pub fn new(
        db: Db,
        clock: Clock,
        background: Background,
        system: Caller,
        launchers: Vec<Launcher>,
        jobs: Jobs,
    ) -> Self {
        let launchers = launchers.into_iter().map(|it| (it.kind, it)).collect();
        let (changed, troubled) = (Notify::new(), Mutex::default());
        Self(Arc::new(Inner { db, clock, background, system, launchers, jobs, changed, troubled }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "schedules", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Begins to fire, until the process stops.
    pub fn start(&self) {
        self.0.background.spawn(ticker::run(self.clone()));
    }

    /// The kinds of work that can be scheduled.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.0.launchers.keys().copied().collect()
    }

    /// A new schedule.
    ///
    /// # Errors
    /// `schedule_taken` when its id is; when the caller may not begin such work, or its input is
    /// not for it.
    pub async fn create(&self, caller: &Caller, new: NewSchedule) -> Result<Schedule> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, caller) = (self.clone(), caller.clone());
        let insert = self.0.db.transaction(move |conn| {
            async move { it.insert(conn, &scope, &caller, new).await }.boxed()
        });
        let schedule = insert.await?;
        self.0.changed.notify_one();
        Ok(schedule)
    }

    async fn insert(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        new: NewSchedule,
    ) -> Result<Schedule> {
        let schedule = self.written(caller, new, None)?;
        if store::insert(conn, scope, &schedule).await? {
            let event = Event::new(&self.0.clock, "schedule.created", schedule.id);
            emit(conn, scope, event.after(&schedule)).await?;
            return Ok(schedule);
        }
        let detail = format!("Entity with id {} already exists", schedule.id);
        Err(Failure::conflict("schedule_taken", detail))
    }

    /// A schedule as a client wants it, in the place of `old` if there is one.
    fn written(
        &self,
        caller: &Caller,
        new: NewSchedule,
        old: Option<Schedule>,
    ) -> Result<Schedule> {
        let now = self.0.clock.now();
        let NewSchedule {
            id,
            name,
            enabled,
            trigger,
            kind,
            input,
            misfire,
            overlap,
            jitter_seconds,
        } = new;
        let launcher = self.launcher(&kind)?;
        caller.permit(launcher.permission)?;
        (launcher.check)(&input)?;
        let trigger = trigger.settled(old.as_ref().map(|it| &it.trigger), now);
        let next_tick = match &old {
            // A tick that is due and not begun yet is not lost by a new name.
            Some(old) if old.enabled && enabled && old.trigger == trigger => old.next_tick,
            _ if enabled => trigger.ticks().map_err(unreadable)?.next(now),
            _ => None,
        };
        let id = old.as_ref().map(|it| it.id).or(id);
        let mut schedule = Schedule {
            id: id.unwrap_or_else(|| ScheduleId::new(&self.0.clock)),
            created_at: old.as_ref().map_or(now, |it| it.created_at),
            updated_at: now,
            name,
            enabled,
            trigger,
            target: Target { kind, input: model::raw(&input)? },
            misfire,
            overlap,
            jitter_seconds,
            next_at: None,
            last_at: old.as_ref().and_then(|it| it.last_at),
            next_tick,
            owner: caller.subject().to_owned(),
            revision: old.map_or(1, |it| it.revision + 1),
        };
        schedule.next_at = next_tick.map(|it| schedule.due(it));
        Ok(schedule)
    }

    /// Who begins work of a kind.
    fn launcher(&self, kind: &str) -> Result<&Launcher> {
        self.0.launchers.get(kind).ok_or_else(|| {
            let kinds: Vec<String> = self.kinds().into_iter().map(quote).collect();
            let known = if kinds.is_empty() { "nothing".to_owned() } else { choice(&kinds) };
            let detail = format!("`{kind}` cannot be scheduled; what can is {known}");
            Failure::bad_request("kind_unknown", detail)
        })
    }

    /// One schedule.
    ///
    /// # Errors
    /// `schedule_missing`.
    pub async fn get(&self, caller: &Caller, id: ScheduleId) -> Result<Schedule> {
        let scope = caller.permit(READ)?;
        let found = store::find(&mut self.0.db.conn().await?, scope, id).await?;
        found.ok_or_else(|| missing(id))
    }

    /// Schedules.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Schedule>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.0.db.conn().await?, scope, Schedule::COLUMNS).await?)
    }

    /// Replaces a schedule. Its next time stays when neither its trigger changes nor whether it is
    /// paused. `conditions` here and below are about its revision, see [`http`].
    ///
    /// # Errors
    /// `schedule_missing`, `precondition_failed`, and those of [`Schedules::create`].
    pub async fn update(
        &self,
        caller: &Caller,
        id: ScheduleId,
        new: NewSchedule,
        conditions: &Conditions,
    ) -> Result<Schedule> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, caller, conditions) = (self.clone(), caller.clone(), conditions.clone());
        let replace = self.0.db.transaction(move |conn| {
            async move { it.replace(conn, &scope, &caller, id, new, &conditions).await }.boxed()
        });
        let schedule = replace.await?;
        self.0.changed.notify_one();
        Ok(schedule)
    }

    async fn replace(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        id: ScheduleId,
        new: NewSchedule,
        conditions: &Conditions,
    ) -> Result<Schedule> {
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.revision_tag())?;
        let event = Event::new(&self.0.clock, "schedule.updated", id).before(&old);
        let schedule = self.written(caller, new, Some(old))?;
        store::update(conn, scope, &schedule).await?;
        emit(conn, scope, event.after(&schedule)).await?;
        Ok(schedule)
    }

    /// Removes a schedule and its history. Jobs that it has begun go on.
    ///
    /// # Errors
    /// `schedule_missing`, `precondition_failed`.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: ScheduleId,
        conditions: &Conditions,
    ) -> Result<()> {
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
        id: ScheduleId,
        conditions: &Conditions,
    ) -> Result<()> {
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.revision_tag())?;
        store::delete(conn, scope, id).await?;
        emit(conn, scope, Event::new(&self.0.clock, "schedule.deleted", id).before(&old)).await?;
        Ok(())
    }

    /// Does several changes; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`].
    pub async fn change(&self, caller: &Caller, bulk: Bulk<NewSchedule>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, caller) = (self.clone(), caller.clone());
        let step = bulk.apply(&self.0.db, move |conn, operation| {
            let (it, scope, caller) = (it.clone(), scope.clone(), caller.clone());
            async move { it.step(conn, &scope, &caller, operation).await }.boxed()
        });
        let changed = step.await?;
        self.0.changed.notify_one();
        Ok(changed)
    }

    async fn step(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        operation: Operation<NewSchedule>,
    ) -> Done {
        let none = Conditions::default();
        match operation {
            Operation::Create(new) => {
                Applied::created(&self.insert(conn, scope, caller, new).await?)
            }
            Operation::Update(id, new) => Applied::updated(
                &self.replace(conn, scope, caller, ScheduleId(id), new, &none).await?,
            ),
            Operation::Delete(id) => {
                self.remove(conn, scope, ScheduleId(id), &none).await?;
                Ok(Applied::Deleted)
            }
        }
    }

    /// Pauses a schedule, or lets it go on. What would have fired meanwhile does not. Whoever lets it go on
    /// must be permitted what it begins.
    ///
    /// # Errors
    /// `schedule_missing`, `precondition_failed`; for going on also `kind_unknown`, and when the caller may
    /// not begin such work.
    pub async fn enable(
        &self,
        caller: &Caller,
        id: ScheduleId,
        enabled: bool,
        conditions: &Conditions,
    ) -> Result<Schedule> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, caller, conditions) = (self.clone(), caller.clone(), conditions.clone());
        let clock = self.0.clock.clone();
        let change = self.0.db.transaction(move |conn| {
            async move {
                let before = store::lock(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                if enabled {
                    caller.permit(it.launcher(&before.target.kind)?.permission)?;
                }
                conditions.allow_change(&before.revision_tag())?;
                if before.enabled == enabled {
                    return Ok(before);
                }
                let (now, mut after) = (clock.now(), before.clone());
                let ticks = after.trigger.ticks().map_err(unreadable)?;
                after.enabled = enabled;
                after.next_tick = if enabled { ticks.next(now) } else { None };
                after.next_at = after.next_tick.map(|tick| after.due(tick));
                after.updated_at = now;
                after.revision += 1;
                store::update(conn, &scope, &after).await?;
                let done = if enabled { "schedule.resumed" } else { "schedule.paused" };
                let event = Event::new(&clock, done, id).before(&before);
                emit(conn, &scope, event.after(&after)).await?;
                Ok(after)
            }
            .boxed()
        });
        let schedule = change.await?;
        self.0.changed.notify_one();
        Ok(schedule)
    }

    /// Begins the job of a schedule at once, also of one that is paused. Its next tick stays. The job is
    /// called as the schedule is, unless another label is wished for.
    ///
    /// # Errors
    /// `schedule_missing`; `schedule_busy` when an earlier job has not ended and the schedule lets
    /// no two overlap; `idempotency_key_reused`; when no job can be begun.
    pub async fn run_now(&self, caller: &Caller, id: ScheduleId, wishes: Wishes) -> Result<Begun> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, caller, now) = (self.clone(), caller.clone(), self.0.clock.now());
        let begin = self.0.db.transaction(move |conn| {
            async move { it.begin_now(conn, &scope, &caller, id, wishes, now).await }.boxed()
        });
        let begun = begin.await?;
        self.0.jobs.wake_all();
        Ok(begun)
    }

    async fn begin_now(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        id: ScheduleId,
        mut wishes: Wishes,
        now: Time,
    ) -> Result<Begun> {
        let schedule = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        caller.permit(self.launcher(&schedule.target.kind)?.permission)?;
        let submitted = || format!("Job of schedule {id} submitted");
        let request = wishes.request.take();
        if let Some(key) = &request
            && let Some(job) = self.0.jobs.asked(conn, scope, key).await?
        {
            return Ok(Begun { job_id: job.0, message: submitted() });
        }
        let mut run = self.begin(conn, scope, &schedule, wishes, now, now).await?;
        run.manual = true;
        let Some(job_id) = run.job_id else {
            let detail = "a job of this schedule has not ended, and it lets no two overlap";
            return Err(Failure::conflict("schedule_busy", detail));
        };
        if let Some(key) = &request {
            self.0.jobs.remember(conn, scope, key, JobId(job_id)).await?;
        }
        // Two may ask within a microsecond, or at a tick.
        while !store::add_run(conn, scope, id, &run).await? {
            run.tick_at = Time::from_micros(run.tick_at.micros() + 1);
        }
        let next = schedule.next_tick.zip(schedule.next_at);
        let last = (run.outcome == TickOutcome::Fired).then_some(now);
        store::advance(conn, scope, id, next, last).await?;
        store::trim(conn, scope, id, schedule.overlap).await?;
        emit(conn, scope, Event::new(&self.0.clock, "schedule.run", id).after(&run)).await?;
        let message = match run.outcome {
            TickOutcome::Fired => submitted(),
            _ => format!("A job of schedule {id} waits already"),
        };
        Ok(Begun { job_id, message })
    }

    /// Begins the job of a tick if none overlaps that may not. Writes nothing of its own.
    async fn begin(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        schedule: &Schedule,
        wishes: Wishes,
        tick_at: Time,
        now: Time,
    ) -> Result<Run> {
        let id = schedule.id;
        let outcome = TickOutcome::SkippedOverlap;
        let mut run =
            Run { tick_at, fired_at: now, outcome, manual: false, job_id: None, error: None };
        let launcher = self.launcher(&schedule.target.kind)?;
        if schedule.overlap == Overlap::Skip && self.is_busy(conn, scope, id).await? {
            return Ok(run);
        }
        let launch = Launch {
            input: serde_json::from_str(schedule.target.input.get())?,
            unique: (schedule.overlap == Overlap::Queue).then(|| format!("schedule:{id}")),
            owner: schedule.owner.clone(),
            wishes: Wishes { label: wishes.label.or(Some(schedule.name.clone())), ..wishes },
        };
        let job = (launcher.launch)(conn, scope, launch).await?;
        run.job_id = Some(job);
        // Where one waits already, that is the one.
        let waits =
            schedule.overlap == Overlap::Queue && store::has_begun(conn, scope, id, job).await?;
        if !waits {
            run.outcome = TickOutcome::Fired;
        }
        Ok(run)
    }

    /// Whether a job of a schedule has not ended.
    async fn is_busy(&self, conn: &mut Conn, scope: &Scope, id: ScheduleId) -> Result<bool> {
        for job in store::open_jobs(conn, scope, id).await? {
            if self.0.jobs.is_unfinished(conn, scope, job).await? {
                return Ok(true);
            }
        }
        store::settle(conn, scope, id).await?;
        Ok(false)
    }

    /// What became of the ticks of a schedule, newest first.
    ///
    /// # Errors
    /// `schedule_missing`.
    pub async fn history(&self, caller: &Caller, id: ScheduleId) -> Result<Vec<Run>> {
        let scope = caller.permit(READ)?.clone();
        let look = self.0.db.read(move |conn| {
            async move {
                store::find(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                Ok(store::history(conn, &scope, id).await?)
            }
            .boxed()
        });
        look.await
    }

    /// The next times that its trigger names, whether it is paused or not.
    ///
    /// # Errors
    /// `schedule_missing`.
    pub async fn upcoming(
        &self,
        caller: &Caller,
        id: ScheduleId,
        count: usize,
    ) -> Result<Vec<Upcoming>> {
        let schedule = self.get(caller, id).await?;
        let ticks = schedule.trigger.ticks().map_err(unreadable)?;
        let times = ticks.following(self.0.clock.now()).take(count);
        Ok(times.map(|at| Upcoming { at, local: ticks.local(at) }).collect())
    }
}

fn missing(id: ScheduleId) -> Failure {
    Failure::missing("schedule_missing", format!("Entity with id {id} not found"))
}

/// A trigger that nobody can read any more, such as one in a time zone that is gone.
fn unreadable(it: cron::CronError) -> Failure {
    Failure::bad_request("trigger_invalid", it.to_string())
}
