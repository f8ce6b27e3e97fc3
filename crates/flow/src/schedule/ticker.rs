//! Fires what is due: one loop in each process, which sleeps until the next tick.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::{Conn, Failure, Kind, Result, Scope, Time, Wishes, failpoint};

use super::model::{GRACE, Plan, Run, ScheduleId, TickOutcome, kept_error};
use super::{Schedules, WRITE, store, unreadable};

/// Changes in this process wake the loop; this is for those of others, and for what they leave when
/// they die.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long to wait when something that is due could not be begun.
const PAUSE: Duration = Duration::from_secs(1);

/// How many schedules one look at the table gives.
const BATCH: usize = 100;

/// What a look at the schedules has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// When the next tick is due, if there is any.
    pub next: Option<Time>,
    /// Whether something that is due could not be begun, and is to be tried again.
    pub again: bool,
}

/// What became of a tick that was due.
enum Ticked {
    /// It was handled by somebody else, or the schedule is gone or paused.
    Nothing,
    /// It was handled; whether there is a new job.
    Handled { begun: bool },
    /// It is to be tried again later.
    Later,
}

/// Looks and sleeps until the process stops.
pub(super) async fn run(schedules: Schedules) {
    let stopping = schedules.0.background.stopping().clone();
    while !stopping.is_cancelled() {
        // Waiting before it looks, so that a change meanwhile is not missed.
        let mut changed = pin!(schedules.0.changed.notified());
        changed.as_mut().enable();
        let now = schedules.0.clock.now();
        let pause = match schedules.look(now).await {
            Ok(looked) => pause(looked, schedules.0.clock.now()),
            Err(failure) => {
                tracing::error!(%failure, "schedules cannot be looked at, trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// How long to sleep after a look.
fn pause(Looked { next, again }: Looked, now: Time) -> Duration {
    match next {
        _ if again => PAUSE,
        // A timer may be early by less than a millisecond, which would make it look twice.
        Some(next) => (next.since(now) + Duration::from_millis(1)).min(LOOK_AGAIN),
        None => LOOK_AGAIN,
    }
}

impl Schedules {
    /// Fires everything that is due at `now`, and tells when the next is. The ticker calls this;
    /// whoever has a clock of his own may as well.
    ///
    /// # Errors
    /// When the table cannot be read. What becomes of a single schedule is in its history.
    pub async fn look(&self, now: Time) -> Result<Looked> {
        let scope = self.0.system.permit(WRITE)?.clone();
        let mut again = false;
        loop {
            // Those that cannot be begun are in front, and must not hide the others.
            let limit = BATCH + self.0.troubled.lock().len();
            let soonest = store::soonest(&mut self.0.db.conn().await?, &scope, limit).await?;
            let due = soonest.iter().take_while(|it| it.1 <= now).map(|it| it.0);
            let mut due: Vec<ScheduleId> = due.collect();
            {
                let mut troubled = self.0.troubled.lock();
                troubled.retain(|id, _| due.contains(id));
                if again {
                    due.retain(|id| !troubled.contains_key(id));
                }
            }
            if due.is_empty() {
                let next = soonest.iter().map(|it| it.1).find(|it| *it > now);
                return Ok(Looked { next, again });
            }
            for id in due {
                if self.0.background.stopping().is_cancelled() {
                    return Ok(Looked { next: None, again });
                }
                again |= self.fire_all(&scope, id, now).await;
            }
        }
    }

    /// Fires the ticks of a schedule that are due, one after the other. True when one of them is to
    /// be tried again.
    async fn fire_all(&self, scope: &Scope, id: ScheduleId, now: Time) -> bool {
        loop {
            match self.fire(scope, id, now).await {
                Ticked::Nothing => break,
                Ticked::Handled { begun } => {
                    self.0.troubled.lock().remove(&id);
                    if begun {
                        self.0.jobs.wake_all();
                    }
                }
                Ticked::Later => return true,
            }
        }
        self.0.troubled.lock().remove(&id);
        false
    }

    /// Fires one tick. A failure is the tick's own: the schedule goes on, and so do the others.
    async fn fire(&self, scope: &Scope, id: ScheduleId, now: Time) -> Ticked {
        failpoint::reach("schedule.fires");
        let (it, of) = (self.clone(), scope.clone());
        let fire = self
            .0
            .db
            .transaction(move |conn| async move { it.tick(conn, &of, id, now).await }.boxed());
        let fired = AssertUnwindSafe(fire).catch_unwind().await;
        let failure = match fired {
            Ok(Ok(ticked)) => {
                failpoint::reach("schedule.fired");
                return ticked;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::internal("beginning the job panicked"),
        };
        let since = *self.0.troubled.lock().entry(id).or_insert(now);
        if may_pass(&failure) && now.since(since) <= GRACE {
            tracing::warn!(schedule = %id, %failure, "a tick cannot be begun, trying again");
            return Ticked::Later;
        }
        tracing::error!(schedule = %id, %failure, "a tick has failed");
        let (it, of) = (self.clone(), scope.clone());
        let detail = kept_error(failure.detail());
        let fail = self.0.db.transaction(move |conn| {
            async move { it.fail(conn, &of, id, now, detail).await }.boxed()
        });
        fail.await.unwrap_or_else(|failure| {
            tracing::error!(schedule = %id, %failure, "the failure of a tick is not written");
            Ticked::Later
        })
    }

    async fn tick(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ScheduleId,
        now: Time,
    ) -> Result<Ticked> {
        let schedule = store::lock(conn, scope, id).await?;
        let Some(schedule) = schedule.filter(|it| it.is_due(now)) else {
            return Ok(Ticked::Nothing);
        };
        let ticks = schedule.trigger.ticks().map_err(unreadable)?;
        let Plan { skip, fire, next } = schedule.plan(&ticks, now);
        for tick_at in skip {
            store::add_run(conn, scope, id, &missed(tick_at, now)).await?;
        }
        let mut begun = false;
        if let Some(tick) = fire
            // A clock that was set back may come upon what was fired already.
            && store::run_at(conn, scope, id, tick).await?.is_none()
        {
            let run = self.begin(conn, scope, &schedule, Wishes::default(), tick, now).await?;
            begun = run.outcome == TickOutcome::Fired;
            if !store::add_run(conn, scope, id, &run).await? {
                let detail = "another node has begun the job of this tick";
                return Err(Failure::conflict("concurrent_change", detail));
            }
        }
        let next = next.map(|it| (it, schedule.due(it)));
        store::advance(conn, scope, id, next, begun.then_some(now)).await?;
        store::trim(conn, scope, id, schedule.overlap).await?;
        Ok(Ticked::Handled { begun })
    }

    /// Writes down that a tick has failed, and goes on to the next.
    async fn fail(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ScheduleId,
        now: Time,
        error: String,
    ) -> Result<Ticked> {
        let schedule = store::lock(conn, scope, id).await?;
        let Some(schedule) = schedule.filter(|it| it.is_due(now)) else {
            return Ok(Ticked::Nothing);
        };
        // Without a trigger that can be read there is no next.
        let plan = schedule.trigger.ticks().map(|ticks| schedule.plan(&ticks, now));
        let Plan { skip, fire, next } =
            plan.unwrap_or_else(|_| Plan { fire: schedule.next_tick, ..Plan::default() });
        for tick_at in skip {
            store::add_run(conn, scope, id, &missed(tick_at, now)).await?;
        }
        if let Some(tick_at) = fire {
            let run =
                Run { outcome: TickOutcome::Failed, error: Some(error), ..missed(tick_at, now) };
            store::add_run(conn, scope, id, &run).await?;
        }
        let next = next.map(|it| (it, schedule.due(it)));
        store::advance(conn, scope, id, next, None).await?;
        store::trim(conn, scope, id, schedule.overlap).await?;
        Ok(Ticked::Handled { begun: false })
    }
}

/// A tick that nothing comes of.
fn missed(tick_at: Time, now: Time) -> Run {
    let outcome = TickOutcome::SkippedMisfire;
    Run { tick_at, fired_at: now, outcome, manual: false, job_id: None, error: None }
}

/// Whether the same may go well in a moment. A full queue is none of these: the next tick is there
/// for when it is not.
fn may_pass(failure: &Failure) -> bool {
    failure.kind() == Kind::Unavailable || failure.code() == "concurrent_change"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_the_next_tick_and_half_a_minute_at_most() {
        let now = Time::from_micros(1_000_000);
        let pause = |next, again| pause(Looked { next, again }, now);
        let soon = Some(Time::from_micros(3_500_000));
        assert_eq!(pause(soon, false), Duration::from_millis(2501));
        assert_eq!(pause(Some(Time::from_micros(0)), false), Duration::from_millis(1));
        assert_eq!(pause(Some(Time::from_micros(99_000_000)), false), LOOK_AGAIN);
        assert_eq!(pause(None, false), LOOK_AGAIN);
        assert_eq!(pause(soon, true), PAUSE);
    }
}
