//! Claims what is due and hands it to workers.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::maybe_done;
use modelyard_kernel::{Result, failpoint};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Reports;
use super::engine::{Engine, Machine, Running, Task};
use super::model::{Hold, Lane};
use super::{claims, pulse, worker};

/// Whoever submits wakes the dispatcher; this is for what nobody heard of.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How long the dispatcher waits when the database refuses.
const REFUSED: Duration = Duration::from_millis(500);
/// How often others are told at most.
const TELL: Duration = Duration::from_millis(100);

/// Claims what is due and hands it to workers, until the process stops.
pub(super) async fn dispatch(engine: Engine) {
    let machine = &*engine.0;
    let stopping = machine.background.stopping().clone();
    let mut dispatcher = Dispatcher::default();
    while !stopping.is_cancelled() {
        // Waiting before it looks, so that nothing is missed.
        let mut look = pin!(machine.look.notified());
        look.as_mut().enable();
        let pause = match dispatcher.round(&engine).await {
            Ok(until) => {
                let until = dispatcher.tell(machine).await.map_or(until, |it| it.min(until));
                until.saturating_duration_since(Instant::now())
            }
            Err(failure) => {
                tracing::error!(%failure, "jobs cannot be claimed, trying again");
                machine.survey.store(true, Ordering::Release);
                REFUSED
            }
        };
        tokio::select! {
            () = look => {}
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => {}
        }
    }
}

#[derive(Debug, Default)]
struct Dispatcher {
    /// When to look at all lanes again.
    survey_at: Option<Instant>,
    served: HashMap<Lane, u64>,
    turns: u64,
    told_at: Option<Instant>,
}

impl Dispatcher {
    /// Claims all that there is room for. Gives when to look again at the latest.
    async fn round(&mut self, engine: &Engine) -> Result<Instant> {
        let machine = &*engine.0;
        let told = machine.survey.swap(false, Ordering::AcqRel);
        if told || self.survey_at.is_none_or(|it| it <= Instant::now()) {
            self.survey_at = Some(survey(machine).await?);
        }
        while let Some((lane, most)) = machine.next_lane(&self.served) {
            if machine.background.stopping().is_cancelled() {
                break;
            }
            let claimed = claim(engine, &lane, most).await?;
            self.turns += 1;
            self.served.insert(lane, self.turns);
            for mut task in claimed {
                // Places are given in the order in which they were first asked for.
                poll_fn(|cx| {
                    let _not_yet = task.place.as_mut().poll(cx);
                    Poll::Ready(())
                })
                .await;
                machine.background.spawn(worker::work(engine.clone(), task));
            }
        }
        if self.served.len() > 1000 {
            self.served.clear();
        }
        Ok(self.survey_at.unwrap_or_else(Instant::now))
    }
}

impl Dispatcher {
    /// Tells the others of jobs that were added here and for which there is no place here. Gives when
    /// to do so when it is too soon.
    async fn tell(&mut self, machine: &Machine) -> Option<Instant> {
        let is_untold = machine.untold.load(Ordering::Acquire);
        let has_rest = machine.for_others.load(Ordering::Acquire) || !machine.hot.lock().is_empty();
        if !has_rest || !is_untold {
            return None;
        }
        let next = self.told_at.map(|it| it + TELL).filter(|it| *it > Instant::now());
        if next.is_some() {
            return next;
        }
        machine.untold.store(false, Ordering::Release);
        machine.for_others.store(false, Ordering::Release);
        self.told_at = Some(Instant::now());
        if let Err(failure) = machine.tell_others().await {
            tracing::debug!(%failure, "other processes do not hear of a job at once");
        }
        None
    }
}

/// Finds the lanes in which jobs are due, and ends what is too late. Gives when to look again.
async fn survey(machine: &Machine) -> Result<Instant> {
    let now = machine.clock.now();
    let mut conn = machine.db.conn().await?;
    let waiting = claims::survey(&mut conn, now).await?;
    if waiting.iter().any(|it| it.deadline_at.is_some_and(|it| it <= now)) {
        let late = claims::fail_late(&mut conn, &worker::too_late().error, now).await?;
        tracing::warn!(late, "jobs waited until their deadline");
    }
    drop(conn);
    let mut pause = LOOK_AGAIN;
    for it in waiting {
        let next = [it.next_at, it.deadline_at.filter(|it| *it > now)];
        for next in next.into_iter().flatten() {
            pause = pause.min(next.since(now) + Duration::from_millis(1));
        }
        if it.due > 0 {
            let (tenant, service) = (it.tenant_id.into(), it.service_id.into());
            machine.heat_here(Lane { tenant, service, queue: it.queue.into() });
        }
    }
    Ok(Instant::now() + pause)
}

async fn claim(engine: &Engine, lane: &Lane, most: usize) -> Result<Vec<Task>> {
    let machine = &*engine.0;
    pulse::lease(machine).await?;
    let _claiming = machine.claiming.lock().await;
    let mut conn = machine.db.conn().await?;
    // Before the claim, so that what is added meanwhile makes the lane hot again.
    machine.hot.lock().remove(lane);
    let now = machine.clock.now();
    let claimed = claims::claim(&mut conn, lane, &machine.node, most, now).await;
    let claimed = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            machine.hot.lock().insert(lane.clone());
            return Err(error.into());
        }
    };
    drop(conn);
    failpoint::reach("job.claimed");
    if claimed.len() == most {
        machine.hot.lock().insert(lane.clone());
    }
    let mut running = machine.running.lock();
    let tasks = claimed.into_iter().map(|job| {
        let cancel = CancellationToken::new();
        let (ended, watch) = watch::channel(false);
        let hold = Hold { job: job.id, token: job.token };
        let reports = Arc::new(Reports::new(job.is_fresh()));
        let it =
            Running { hold, lane: lane.clone(), cancel: cancel.clone(), ended: watch, reports };
        if let Some(stale) = running.insert(job.id, it) {
            // Its claim was undone, and what it does counts no more.
            stale.cancel.cancel();
        }
        let work = machine.work(&lane.service, &job.kind);
        let place = Box::pin(maybe_done(Arc::clone(&engine.0).place(lane.clone()).boxed()));
        Task { lane: lane.clone(), work, job, cancel, ended, place }
    });
    Ok(tasks.collect())
}
