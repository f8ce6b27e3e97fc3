//! Takes jobs one by one and does them.

use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::{Assignment, Done, Failed, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::model::{Claimed, JobStatus};
use super::store::{self, Ending};
use super::{Jobs, Running, WRITE};

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

    let outcome = tokio::select! {
        biased;
        outcome = attempt(jobs, job, cancel.clone()) => Some(outcome),
        () = drained(jobs, cancel.clone()) => None,
    };
    let interrupted =
        outcome.is_none() || (jobs.0.background.stopping().is_cancelled() && cancel.is_cancelled());
    record(jobs, id, outcome.filter(|_| !interrupted)).await;

    jobs.0.running.lock().remove(&id);
    let _nobody_waits = ended.send(true);
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
async fn record(jobs: &Jobs, id: super::JobId, outcome: Option<Result<Done, Failed>>) {
    let inner = &jobs.0;
    for pause in [0_u64, 100, 1000, 3000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let written = async {
            let scope = inner.system.permit(WRITE)?;
            let mut conn = inner.db.conn().await?;
            match &outcome {
                None => store::requeue(&mut conn, scope, id).await?,
                Some(outcome) => {
                    store::finish(&mut conn, scope, id, ending(outcome), inner.clock.now()).await?;
                }
            }
            Ok::<(), modelyard_kernel::Failure>(())
        };
        match written.await {
            Ok(()) => return,
            Err(failure) => tracing::error!(%failure, job = %id, "the end of a job is not written"),
        }
    }
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
            error: Some(error.clone()),
            traceback: Some(traceback.clone().unwrap_or_else(|| error.clone())),
        },
    }
}
