//! Takes jobs one by one and does them.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::{Assignment, Failed, Kind, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::model::{Claimed, Ending, JobId};
use super::store;
use super::{Jobs, Running, WRITE};

/// How often the end of a job is written when that is refused, or when there is no time to wait.
const TRIES: u32 = 5;

/// Submitting wakes a worker; this is for jobs that another process submitted.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One worker: takes the next job until the process stops.
pub(super) async fn run(jobs: Jobs) {
    let stopping = jobs.0.background.stopping().clone();
    while !stopping.is_cancelled() {
        if let Some((job, running)) = next(&jobs, &stopping).await {
            work(&jobs, job, running).await;
        }
    }
}

/// The next job; `None` when it is time to look again. Whoever works does not wait to be woken: a
/// worker that is free is.
async fn next(jobs: &Jobs, stopping: &CancellationToken) -> Option<(Claimed, Handle)> {
    // Waiting before it looks, so that each of several submissions at once finds a worker.
    let mut woken = pin!(jobs.0.wake.notified());
    woken.as_mut().enable();
    match claim(jobs).await {
        Ok(Some(claimed)) => return Some(claimed),
        Ok(None) => {
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stopping.cancelled() => {}
            }
        }
        Err(failure) => {
            tracing::error!(%failure, "jobs cannot be claimed, trying again");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = stopping.cancelled() => {}
            }
        }
    }
    None
}

/// The worker's end of a job that runs.
struct Handle {
    cancel: CancellationToken,
    ended: watch::Sender<bool>,
}

async fn claim(jobs: &Jobs) -> Result<Option<(Claimed, Handle)>> {
    let inner = &jobs.0;
    let scope = inner.system.permit(WRITE)?;
    let _claiming = inner.claiming.lock().await;
    let mut conn = inner.db.conn().await?;
    let claimed = store::claim(&mut conn, scope, &inner.node, inner.clock.now()).await?;
    Ok(claimed.map(|job| {
        let cancel = CancellationToken::new();
        let (ended, watch) = watch::channel(false);
        let running = Running { cancel: cancel.clone(), ended: watch };
        inner.running.lock().insert(job.id, running);
        (job, Handle { cancel, ended })
    }))
}

async fn work(jobs: &Jobs, job: Claimed, Handle { cancel, ended }: Handle) {
    let id = job.id;
    let outcome = tokio::select! {
        biased;
        outcome = attempt(jobs, job, cancel.clone()) => Some(outcome),
        () = drained(jobs, cancel.clone()) => None,
    };
    let stopping = jobs.0.background.stopping().is_cancelled();
    match outcome {
        Some(Ok(())) => {}
        Some(Err(failed)) if !(stopping && cancel.is_cancelled()) => {
            record(jobs, id, Some(failed)).await;
        }
        Some(Err(_)) | None => record(jobs, id, None).await,
    }
    jobs.0.running.lock().remove(&id);
    let _nobody_waits = ended.send(true);
}

/// Does a job. A panic in it is a failed job, not a dead worker.
async fn attempt(jobs: &Jobs, job: Claimed, cancel: CancellationToken) -> Result<(), Failed> {
    let Claimed { id, kind, input, promised_id } = job;
    let work = jobs.0.kinds.get().and_then(|it| it.get(kind.as_str()));
    let Some(work) = work else {
        return Err(Failed::new("RuntimeError", format!("this service does no `{kind}` work")));
    };
    let assignment = Assignment {
        job: id.0,
        token: 1,
        attempt: 1,
        caller: jobs.0.system.clone(),
        input: input.unwrap_or_default(),
        artifact: promised_id,
        cancel,
    };
    let done = std::panic::AssertUnwindSafe((work.run)(assignment)).catch_unwind().await;
    done.unwrap_or_else(|_| Err(Failed::new("RuntimeError", "the work panicked, see the log")))
}

/// Ends when the process stops and patience with this job has run out: first it is left to finish,
/// then it is asked to stop, then it is left behind.
async fn drained(jobs: &Jobs, cancel: CancellationToken) {
    jobs.0.background.stopping().cancelled().await;
    tokio::time::sleep(jobs.0.options.drain).await;
    cancel.cancel();
    tokio::time::sleep(Duration::from_secs(4)).await;
}

/// Writes down that a job failed; one that was interrupted is put back for the next start.
///
/// An outage of the database is waited out: a job whose end is not written would look as if it ran
/// for ever.
async fn record(jobs: &Jobs, id: JobId, failed: Option<Failed>) {
    let mut pause = Duration::from_millis(100);
    let mut tries = 0;
    while let Err(failure) = write(jobs, id, failed.as_ref()).await {
        tracing::error!(%failure, job = %id, "the end of a job is not written, trying again");
        let outage = failure.kind() == Kind::Unavailable;
        if !outage || jobs.0.background.stopping().is_cancelled() {
            tries += 1;
        }
        if tries == TRIES {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn write(jobs: &Jobs, id: JobId, failed: Option<&Failed>) -> Result<()> {
    let inner = &jobs.0;
    let scope = inner.system.permit(WRITE)?;
    let mut conn = inner.db.conn().await?;
    match failed {
        None => store::requeue(&mut conn, scope, id).await?,
        Some(failed) => {
            let ending = Ending::of(Err(failed));
            // A record that is gone, or has its end already, stays as it is.
            let _was_running =
                store::finish(&mut conn, scope, id, ending, inner.clock.now()).await?;
        }
    }
    Ok(())
}
