//! Takes jobs one by one and does them.

use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::{Assignment, Done, Failed, Failure, Kind, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::model::{Claimed, JobId, JobStatus};
use super::store::{self, Ending};
use super::{Jobs, Running, WRITE};

/// How often the end of a job is written when that is refused, or when there is no time to wait.
const TRIES: u32 = 5;

/// Submitting wakes a worker; this is for jobs that another process submitted.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One worker: takes the next job until the process stops.
pub(super) async fn run(jobs: Jobs) {
    let stopping = jobs.0.background.stopping().clone();
    while !stopping.is_cancelled() {
        match claim(&jobs).await {
            Ok(Some(job)) => {
                // The next one may be for another worker.
                jobs.wake();
                work(&jobs, job).await;
            }
            Ok(None) => {
                tokio::select! {
                    () = jobs.0.wake.notified() => {}
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
    }
}

async fn claim(jobs: &Jobs) -> Result<Option<Claimed>> {
    let inner = &jobs.0;
    let scope = inner.system.permit(WRITE)?;
    let mut conn = inner.db.conn().await?;
    Ok(store::claim(&mut conn, scope, &inner.node, inner.clock.now()).await?)
}

async fn work(jobs: &Jobs, job: Claimed) {
    let cancel = CancellationToken::new();
    let (ended, watch) = watch::channel(false);
    let id = job.id;
    jobs.0.running.lock().insert(id, Running { cancel: cancel.clone(), ended: watch });

    // Whoever deletes it from here on finds it in the map; who did so before could tell nobody.
    if !is_deleted(jobs, id).await {
        let outcome = tokio::select! {
            biased;
            outcome = attempt(jobs, job, cancel.clone()) => Some(outcome),
            () = drained(jobs, cancel.clone()) => None,
        };
        let stopping = jobs.0.background.stopping().is_cancelled();
        let interrupted = outcome.is_none() || (stopping && cancel.is_cancelled());
        record(jobs, id, outcome.filter(|_| !interrupted)).await;
    }

    jobs.0.running.lock().remove(&id);
    let _nobody_waits = ended.send(true);
}

async fn is_deleted(jobs: &Jobs, id: JobId) -> bool {
    let found = async {
        let scope = jobs.0.system.permit(WRITE)?;
        Ok::<_, Failure>(store::find(&mut jobs.0.db.conn().await?, scope, id).await?)
    };
    matches!(found.await, Ok(None))
}

/// Does a job. A panic in it is a failed job, not a dead worker.
async fn attempt(jobs: &Jobs, job: Claimed, cancel: CancellationToken) -> Result<Done, Failed> {
    let Claimed { id, kind, input, promised_id } = job;
    let work = jobs.0.kinds.get().and_then(|it| it.get(kind.as_str()));
    let Some(work) = work else {
        return Err(Failed::new("RuntimeError", format!("this service does no `{kind}` work")));
    };
    let assignment = Assignment {
        job: id.0,
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

/// Writes the end down; what was interrupted is put back for the next start.
///
/// An outage of the database is waited out: a job whose end is not written would look as if it ran
/// for ever.
async fn record(jobs: &Jobs, id: JobId, outcome: Option<Result<Done, Failed>>) {
    let mut pause = Duration::from_millis(100);
    let mut tries = 0;
    while let Err(failure) = write(jobs, id, outcome.as_ref()).await {
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

async fn write(jobs: &Jobs, id: JobId, outcome: Option<&Result<Done, Failed>>) -> Result<()> {
    let inner = &jobs.0;
    let scope = inner.system.permit(WRITE)?;
    let mut conn = inner.db.conn().await?;
    match outcome {
        None => store::requeue(&mut conn, scope, id).await?,
        Some(outcome) => {
            store::finish(&mut conn, scope, id, ending(outcome), inner.clock.now()).await?;
        }
    }
    Ok(())
}

fn ending(outcome: &Result<Done, Failed>) -> Ending {
    match outcome {
        Ok(Done { artifact }) => Ending {
            status: JobStatus::Completed,
            artifact: *artifact,
            error: None,
            traceback: None,
        },
        Err(Failed { error, traceback }) => Ending {
            status: JobStatus::Failed,
            artifact: None,
            error: Some(storable(error)),
            traceback: Some(storable(traceback.as_ref().unwrap_or(error))),
        },
    }
}

/// Models and scripts say what they like; PostgreSQL's text holds no zero characters.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
