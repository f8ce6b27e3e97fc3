//! What processes tell each other: that they live, and that there is something to do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::Result;
use modelyard_kernel::db::notify;
use tokio::time::Instant;

use super::claims::{self, Beat};
use super::engine::{Machine, Running};
use super::model::Hold;

/// How often a process says that it lives: with [`LEASE`], a job of one that died is begun again
/// elsewhere in less than five seconds, and an idle process asks less than once a second.
const BEAT: Duration = Duration::from_millis(1200);
/// How long the others count on a process that says nothing.
const LEASE: Duration = Duration::from_millis(3400);
/// A lease that ends sooner is renewed before a job is claimed under it.
const LEASE_LEFT: Duration = Duration::from_millis(1500);
/// What processes say to each other: there is something to do, or to stop doing.
const CHANNEL: &str = "modelyard_jobs";

/// Sees to it that the others count on this process for a while.
pub(super) async fn lease(machine: &Machine) -> Result<()> {
    let enough = Instant::now() + LEASE_LEFT;
    if machine.leased.lock().is_none_or(|it| it < enough) {
        beat(machine, true, false).await?;
    }
    Ok(())
}

async fn beat(machine: &Machine, works: bool, takes_over: bool) -> Result<()> {
    let at = Instant::now();
    let known: Vec<Running> = machine.running.lock().values().cloned().collect();
    let beaten = claims::beat(
        &machine.db,
        Beat {
            node: machine.node.clone(),
            lease: works.then_some(LEASE),
            takes_over,
            now: machine.clock.now(),
        },
    )
    .await?;
    if works {
        *machine.leased.lock() = Some(at + LEASE);
        let own: HashSet<Hold> = beaten.own.into_iter().collect();
        for it in known.iter().filter(|it| !own.contains(&it.hold)) {
            // It has ended, or somebody took it away; then nobody wants what it does.
            it.cancel.cancel();
        }
    }
    if beaten.taken_over > 0 {
        let jobs = beaten.taken_over;
        tracing::warn!(jobs, "jobs of a process that is gone are begun again");
        machine.look_at_all();
    }
    Ok(())
}

/// Says that this process lives, and looks after the jobs of those that do not.
pub(super) async fn pulse(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    // After an outage everybody's lease has ended, and whoever comes back first must not take the
    // jobs of those that come back a moment later.
    let mut steady_since = Instant::now();
    // Until the last worker is done, a stop included.
    loop {
        let works = !machine.running.lock().is_empty();
        if stopping.is_cancelled() && !works {
            return;
        }
        let steady = steady_since.elapsed() > LEASE;
        if let Err(failure) = beat(&machine, works, steady).await {
            tracing::warn!(%failure, "the database does not hear that this process lives");
            steady_since = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = machine.pulse.notified() => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Hears what other processes say.
pub(super) async fn listen(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    let heard = || {
        machine.look_at_all();
        machine.pulse.notify_one();
    };
    while !stopping.is_cancelled() {
        let ended = tokio::select! {
            ended = machine.db.listen(CHANNEL, heard) => ended,
            () = stopping.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "other processes cannot be heard, trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Tells the others of jobs that a process without workers took in.
pub(super) async fn announce(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    loop {
        tokio::select! {
            () = machine.look.notified() => {}
            () = stopping.cancelled() => return,
        }
        if let Err(failure) = machine.tell_others().await {
            tracing::warn!(%failure, "other processes do not hear of a job at once");
        }
        // Many jobs at once are one message.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Machine {
    /// Tells other processes to look, for what this one cannot do itself.
    pub(super) async fn tell_others(&self) -> Result<()> {
        Ok(notify(&mut self.db.conn().await?, CHANNEL).await?)
    }
}
