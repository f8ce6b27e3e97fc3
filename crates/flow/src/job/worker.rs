//! Does one job.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::{
    Assignment, Caller, Failed, Kind, Policy, Result, Scope, Time, Verdict, Work, failpoint,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Machine, Task};
use super::model::{Claimed, Ending, Hold, MAX_LOST, longest_pause, told};
use super::store::Again;
use super::{WRITE, context, store};

/// How often the end of a job is written when that is refused, or when there is no time to wait.
const TRIES: u32 = 5;
/// How long a job that was claimed ahead waits for a place.
const NO_PLACE: Duration = Duration::from_millis(200);
/// How long work has to let go when it is told to.
const LET_GO: Duration = Duration::from_secs(4);

pub(super) async fn work(engine: Engine, task: Task) {
    let machine = &*engine.0;
    let Task { lane, work, job, cancel, ended, mut place } = task;
    let hold = Hold { job: job.id, token: job.token };
    let system = Caller::system("jobs", &lane.tenant, &lane.service);
    let system = system.with_origin(None, Some(job.id.0));
    let tries = job.attempt - job.lost;
    let max_attempts = job.max_attempts;
    let policy = work.as_ref().map_or_else(Policy::default, |it| it.policy);
    let found = tokio::time::timeout(NO_PLACE, place.as_mut()).await.is_ok();
    let held = place.as_mut().take_output();
    let outcome = if found {
        let began = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = attempt(machine, &system, work, job, cancel.clone()) => Some(outcome),
            () = drained(machine, cancel.clone()) => None,
        };
        machine.note_pace(&lane, Some(began.elapsed()));
        outcome
    } else {
        // Those before it take longer than it seemed: others may have a place for it.
        machine.note_pace(&lane, None);
        None
    };
    drop((held, place));
    let stopping = machine.background.stopping().is_cancelled();
    let next = match outcome {
        Some(Ok(())) => None,
        Some(Err(_)) | None if stopping && cancel.is_cancelled() => Some(Next::Interrupted),
        None => Some(Next::Interrupted),
        Some(Err(failed)) => Some(match failed.verdict {
            Verdict::Suspended(until) => Next::Suspended(until),
            Verdict::Transient if tries < max_attempts => {
                Next::Later(jitter(longest_pause(&policy, tries), hold), failed)
            }
            Verdict::Transient | Verdict::Permanent => Next::Failed(failed),
        }),
    };
    if let (Some(next), Ok(scope)) = (next, system.permit(WRITE)) {
        record(machine, scope, hold, next).await;
    }
    machine.ended(hold);
    let _nobody_waits = ended.send(true);
}

/// What is to become of a job whose work did not record its end.
enum Next {
    Failed(Failed),
    Later(Duration, Failed),
    Suspended(Time),
    /// Through no fault of its own.
    Interrupted,
}

/// A part of a pause that differs from job to job and from attempt to attempt ("full jitter").
fn jitter(longest: Duration, hold: Hold) -> Duration {
    let mut hasher = DefaultHasher::new();
    hold.hash(&mut hasher);
    #[expect(clippy::cast_precision_loss, reason = "any part will do")]
    let part = hasher.finish() as f64 / u64::MAX as f64;
    longest.mul_f64(part.clamp(0.0, 1.0))
}

/// Does a job once. A panic in it is a failed job, not a dead worker.
async fn attempt(
    machine: &Machine,
    system: &Caller,
    work: Option<Work>,
    job: Claimed,
    cancel: CancellationToken,
) -> Result<(), Failed> {
    if job.lost >= MAX_LOST {
        return Err(Failed::new(
            "RuntimeError",
            format!("given up, since the process that did it ended {} times", job.lost),
        ));
    }
    let Some(work) = work else {
        let kind = &job.kind;
        return Err(Failed::new("RuntimeError", format!("this service does no `{kind}` work")));
    };
    let now = machine.clock.now();
    let deadline = job.deadline_at.map(|it| it.since(now));
    if deadline.is_some_and(|it| it.is_zero()) {
        return Err(too_late());
    }
    let input = match job.input {
        Some(input) => input,
        None => large_input(machine, system, job.id, job.input_bytes).await?,
    };
    let assignment = Assignment {
        job: job.id.0,
        token: job.token,
        attempt: u32::try_from(job.attempt).unwrap_or(u32::MAX),
        is_last: job.attempt - job.lost >= job.max_attempts,
        caller: system.clone(),
        input,
        artifact: job.promised_id,
        cancel: cancel.clone(),
    };
    let done = std::panic::AssertUnwindSafe((work.run)(assignment)).catch_unwind();
    let mut done = std::pin::pin!(done);
    let never = Duration::from_secs(u32::MAX.into());
    let attempt_timeout = work.policy.attempt_timeout.unwrap_or(never);
    let failed = tokio::select! {
        biased;
        done = &mut done => return done.unwrap_or_else(|_| Err(panicked())),
        () = tokio::time::sleep(deadline.unwrap_or(never)) => too_late(),
        () = tokio::time::sleep(attempt_timeout) => {
            let seconds = attempt_timeout.as_secs_f64();
            Failed::new("TimeoutError", format!("the attempt took more than {seconds} seconds"))
                .transient()
        }
    };
    cancel.cancel();
    match tokio::time::timeout(LET_GO, done).await {
        // It came to its end at the last moment.
        Ok(Ok(Ok(()))) => Ok(()),
        _ => Err(failed),
    }
}

fn panicked() -> Failed {
    Failed::new("RuntimeError", "the work panicked, see the log")
}

/// What a job says that was not done in time.
pub(super) fn too_late() -> Failed {
    Failed::new("TimeoutError", "the job was not done by its deadline")
}

async fn large_input(
    machine: &Machine,
    system: &Caller,
    id: super::JobId,
    bytes: i64,
) -> Result<Vec<u8>, Failed> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let scope = system.permit(WRITE)?;
    let mut conn = machine.db.conn().await.map_err(modelyard_kernel::Failure::from)?;
    let found =
        store::input(&mut conn, scope, id).await.map_err(modelyard_kernel::Failure::from)?;
    found.ok_or_else(|| Failed::new("RuntimeError", "what was asked for is gone"))
}

/// Ends when the process stops and patience with this job has run out: first it is left to finish,
/// then it is asked to stop, then it is left behind.
async fn drained(machine: &Machine, cancel: CancellationToken) {
    machine.background.stopping().cancelled().await;
    tokio::time::sleep(machine.options.drain).await;
    cancel.cancel();
    tokio::time::sleep(LET_GO).await;
}

/// Writes down what is to become of a job. An outage of the database is waited out: a job whose end
/// is not written would look as if it ran for ever.
async fn record(machine: &Machine, scope: &Scope, hold: Hold, next: Next) {
    let mut pause = Duration::from_millis(100);
    let mut tries = 0;
    while let Err(failure) = write(machine, scope, hold, &next).await {
        tracing::error!(%failure, job = %hold.job, "the end of a job is not written, trying again");
        let outage = failure.kind() == Kind::Unavailable;
        if !outage || machine.background.stopping().is_cancelled() {
            tries += 1;
        }
        if tries == TRIES {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A record that is gone, has its end already or is held by another stays as it is.
async fn write(machine: &Machine, scope: &Scope, hold: Hold, next: &Next) -> Result<()> {
    let reports = machine.running(hold.job).filter(|it| it.hold == hold).map(|it| it.reports);
    if let Some(reports) = reports
        && let Err(failure) = context::flush(machine, scope, hold, &reports).await
    {
        if failure.kind() == Kind::Unavailable {
            return Err(failure);
        }
        tracing::error!(%failure, job = %hold.job, "what a job said last is not written");
    }
    failpoint::reach("job.ending");
    let now = machine.clock.now();
    let mut conn = machine.db.conn().await?;
    let waits = match next {
        Next::Failed(failed) => {
            let ending = Ending::of(Err(failed));
            store::finish(&mut conn, scope, hold, ending, now).await?;
            None
        }
        Next::Later(pause, failed) => Some((Some(now.after(*pause)), Some(told(failed)))),
        Next::Suspended(until) => Some((Some(*until), None)),
        Next::Interrupted => Some((None, None)),
    };
    if let Some((run_at, failure)) = waits {
        store::again(&mut conn, scope, hold, Again { run_at, failure }).await?;
        machine.heat_some();
    }
    failpoint::reach("job.ended");
    Ok(())
}
