//! What work can say and keep while it is done: steps, progress, lines of a log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use modelyard_kernel::db::storable;
use modelyard_kernel::{
    Clock, Conn, Failed, Failure, Kind, Progress, Result, Scope, Time, Ulid, failpoint,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::engine::Machine;
use super::model::{Hold, LogLine, Reported};
use super::{Jobs, journal, store};

/// How often what was said is written down.
const FLUSH: Duration = Duration::from_millis(400);
/// Lines that wait to be written down; of more, the first go.
const BUFFERED: usize = 2000;
/// Characters of a line.
const LINE: usize = 4096;
/// Lines that the record itself shows.
const TAIL: usize = 10;
/// Characters of these lines.
const TAIL_LINE: usize = 400;
/// What shares the transaction of a step.
pub type Also =
    Arc<dyn for<'c> Fn(&'c mut Conn, &'c Scope) -> BoxFuture<'c, Result<()>> + Send + Sync>;

/// A job as its work sees it.
///
/// Work that is written as steps goes on after a crash where it was: the result of each step is
/// written down once, and a step that has one is not done again.
#[derive(Debug)]
pub struct Context {
    jobs: Jobs,
    scope: Scope,
    hold: Hold,
    attempt: i64,
    cancel: CancellationToken,
    reports: Arc<Reports>,
    journal: OnceCell<HashMap<(String, String), Box<RawValue>>>,
}

impl Context {
    pub(super) fn new(
        jobs: Jobs,
        scope: Scope,
        hold: Hold,
        attempt: i64,
        cancel: CancellationToken,
    ) -> Self {
        let running = jobs.machine().running(hold.job).filter(|it| it.hold == hold);
        let reports = running.map_or_else(Arc::default, |it| it.reports);
        Self { jobs, scope, hold, attempt, cancel, reports, journal: OnceCell::new() }
    }

    /// Does a step, unless an earlier attempt has: then its result is given. `name` says which step
    /// of the job it is, and stays the same from version to version.
    ///
    /// # Errors
    /// Those of `work`; when somebody else does the job by now; when the result cannot be written
    /// down.
    pub async fn step<T: Serialize + DeserializeOwned + Send + Sync>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failed>> + Send,
    ) -> Result<T, Failed> {
        self.step_at(name, "", work).await
    }

    /// Does a step whose result is of use on this node only, such as files in a directory. On another
    /// node it is done again.
    ///
    /// # Errors
    /// As [`Context::step`].
    pub async fn local_step<T: Serialize + DeserializeOwned + Send + Sync>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failed>> + Send,
    ) -> Result<T, Failed> {
        let node = self.jobs.machine().node.clone();
        self.step_at(name, &node, work).await
    }

    async fn step_at<T: Serialize + DeserializeOwned + Send + Sync>(
        &self,
        name: &str,
        node: &str,
        work: impl Future<Output = Result<T, Failed>> + Send,
    ) -> Result<T, Failed> {
        if let Some(result) = self.result(name, node).await? {
            return Ok(result);
        }
        let started_at = self.clock().now();
        let result = work.await?;
        failpoint::reach("step.done");
        self.write(Entry { node, ..Entry::new(name, &result, started_at)? }).await?;
        failpoint::reach("step.journaled");
        Ok(result)
    }

    /// Writes down what a step came to that was done outside of [`Context::step`], and does `also` in
    /// the same transaction.
    ///
    /// # Errors
    /// As [`Context::step`], and those of `also`.
    pub async fn finish_step<T: Serialize + Sync>(
        &self,
        name: &str,
        result: &T,
        started_at: Time,
        also: Also,
    ) -> Result<(), Failed> {
        failpoint::reach("step.done");
        self.write(Entry { also: Some(also), ..Entry::new(name, result, started_at)? }).await?;
        failpoint::reach("step.journaled");
        Ok(())
    }

    /// What a step of an earlier attempt came to.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn done<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        self.result(name, "").await
    }

    /// The same for a local step, on this node.
    ///
    /// # Errors
    /// As [`Context::done`].
    pub async fn done_here<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        self.result(name, &self.jobs.machine().node).await
    }

    async fn result<T: DeserializeOwned>(
        &self,
        name: &str,
        node: &str,
    ) -> Result<Option<T>, Failed> {
        if self.reports.is_fresh {
            return Ok(None);
        }
        let journal = self.journal.get_or_try_init(|| async {
            let load = || async {
                let mut conn = self.jobs.machine().db.conn().await?;
                Ok(journal::steps(&mut conn, &self.scope, self.hold.job).await?)
            };
            let steps = patiently(self.jobs.machine(), &self.cancel, load).await?;
            Ok::<_, Failed>(steps.into_iter().map(|it| ((it.name, it.node), it.result)).collect())
        });
        let key = (name.to_owned(), node.to_owned());
        let Some(result) = journal.await?.get(&key) else { return Ok(None) };
        serde_json::from_str(result.get()).map(Some).map_err(|_| {
            Failed::new("RuntimeError", format!("what step `{name}` came to cannot be read"))
        })
    }

    /// Writes down something that later attempts should know, over what was written under the same
    /// name before; they find it by [`Context::done`].
    ///
    /// # Errors
    /// When somebody else does the job by now, and when it cannot be written down.
    pub async fn note<T: Serialize + Sync>(&self, name: &str, value: &T) -> Result<(), Failed> {
        let now = self.clock().now();
        self.write(Entry { replaces: true, ..Entry::new(name, value, now)? }).await
    }

    /// The same, and does `also` in the same transaction.
    ///
    /// # Errors
    /// As [`Context::note`], and those of `also`.
    pub async fn note_with<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        also: Also,
    ) -> Result<(), Failed> {
        let (now, also) = (self.clock().now(), Some(also));
        failpoint::reach("note.begins");
        self.write(Entry { also, replaces: true, ..Entry::new(name, value, now)? }).await?;
        failpoint::reach("note.written");
        Ok(())
    }

    async fn write(&self, entry: Entry<'_>) -> Result<(), Failed> {
        let Entry { name, node, result, started_at, also, replaces } = entry;
        let machine = self.jobs.machine();
        let write = || {
            let done = journal::Done {
                name: name.to_owned(),
                node: node.to_owned(),
                result: result.clone(),
                attempt: self.attempt,
                started_at,
                finished_at: machine.clock.now(),
            };
            let (scope, hold, also) = (self.scope.clone(), self.hold, also.clone());
            machine.db.transaction(move |conn| {
                async move {
                    if !store::holds(conn, &scope, hold).await? {
                        return Err(taken_away());
                    }
                    if let Some(also) = also {
                        also(conn, &scope).await?;
                    }
                    match journal::write(conn, &scope, hold.job, done, replaces).await? {
                        true => Ok(()),
                        false => Err(taken_away()),
                    }
                }
                .boxed()
            })
        };
        Ok(patiently(machine, &self.cancel, write).await?)
    }

    /// Writes down what a local step that began at `started_at` came to, also when it was done before:
    /// what it had made may be gone by now.
    ///
    /// # Errors
    /// As [`Context::note`].
    pub async fn note_here<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        started_at: Time,
    ) -> Result<(), Failed> {
        let node = &self.jobs.machine().node;
        self.write(Entry { node, replaces: true, ..Entry::new(name, value, started_at)? }).await
    }

    /// Whether what is written in the name of this attempt still counts; true as long as the database
    /// does not say otherwise.
    pub async fn is_held(&self) -> bool {
        let ask = async {
            let mut conn = self.jobs.machine().db.conn().await?;
            store::holds(&mut conn, &self.scope, self.hold).await
        };
        ask.await.unwrap_or(true)
    }

    /// Lets the job rest until `time`: its place is free for others meanwhile. The first time this
    /// gives an error, which the work must pass on; after `time` it gives nothing. `name` is that of
    /// a step.
    ///
    /// # Errors
    /// A suspension, until `time` has come.
    pub async fn sleep_until(&self, name: &str, time: Time) -> Result<(), Failed> {
        let until: Option<i64> = self.result(name, "").await?;
        let time = until.map_or(time, Time::from_micros);
        let now = self.clock().now();
        if until.is_none() {
            self.write(Entry::new(name, &time.micros(), now)?).await?;
        }
        if time <= now { Ok(()) } else { Err(Failed::suspended(time)) }
    }

    /// The job's id.
    pub fn job(&self) -> Ulid {
        self.hold.job.0
    }

    /// A name for what a step does to the world outside, the same in every attempt, for those who
    /// can tell by it that they were asked before.
    pub fn idempotency_key(&self, step: &str) -> String {
        format!("{}-{step}", self.hold.job)
    }

    /// Says how far the work has come. What is said in quick succession is shown once.
    pub fn progress(&self, progress: Progress) {
        self.reports.progress(progress, self.clock().now());
        self.flush_later();
    }

    /// Says a line, such as one that a script printed; `stream` is `stdout`, `stderr` or `system`.
    pub fn log(&self, stream: &str, line: &str) {
        self.reports.line(stream, line, self.clock().now());
        self.flush_later();
    }

    fn clock(&self) -> &Clock {
        &self.jobs.machine().clock
    }

    /// Writes down what is said, as long as the job runs.
    fn flush_later(&self) {
        if !self.reports.begins_to_flush() {
            return;
        }
        let (machine, reports) = (Arc::clone(&self.jobs.0.engine.0), Arc::clone(&self.reports));
        let (scope, hold) = (self.scope.clone(), self.hold);
        let background = machine.background.clone();
        background.spawn(async move {
            while machine.running(hold.job).is_some_and(|it| it.hold == hold) {
                if let Err(failure) = flush(&machine, &scope, hold, &reports).await {
                    tracing::debug!(%failure, job = %hold.job, "what a job says waits");
                }
                tokio::time::sleep(FLUSH).await;
            }
        });
    }
}

/// What is written down.
struct Entry<'a> {
    name: &'a str,
    /// Where it is of use; empty when that is everywhere.
    node: &'a str,
    result: Box<RawValue>,
    started_at: Time,
    also: Option<Also>,
    replaces: bool,
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, value: &impl Serialize, started_at: Time) -> Result<Self, Failed> {
        let result = serde_json::value::to_raw_value(value).map_err(Failure::from)?;
        Ok(Self { name, node: "", result, started_at, also: None, replaces: false })
    }
}

pub(super) fn taken_away() -> Failure {
    Failure::conflict("job_canceled", "the job was canceled, or is done by another process")
}

/// Does something to the database, and waits out an outage: what a job did for hours must not be lost
/// for want of a moment.
pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(
    machine: &Machine,
    cancel: &CancellationToken,
    mut work: impl FnMut() -> F,
) -> Result<T> {
    let mut pause = Duration::from_millis(50);
    loop {
        match work().await {
            Err(failure)
                if failure.kind() == Kind::Unavailable
                    && !cancel.is_cancelled()
                    && !machine.background.stopping().is_cancelled() =>
            {
                tracing::warn!(%failure, "a job waits for the database");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = cancel.cancelled() => return Err(failure),
                }
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            done => return done,
        }
    }
}

/// What a job says, until it is written down.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Whether nobody has claimed the job before: then there is nothing to go on from.
    is_fresh: bool,
    said: Mutex<Said>,
    /// One flush at a time.
    flushing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<(Time, String, String)>,
    dropped: usize,
    tail: VecDeque<String>,
    tail_is_new: bool,
    progress: Option<Reported>,
    /// The number of the next line, once known.
    next: Option<i64>,
    /// Whether the answer to the last commit may have been lost.
    unsure: bool,
    flushes: bool,
}

impl Reports {
    pub(super) fn new(is_fresh: bool) -> Self {
        Self { is_fresh, ..Self::default() }
    }

    fn progress(&self, mut progress: Progress, now: Time) {
        progress.fraction =
            progress.fraction.filter(|it| it.is_finite()).map(|it| it.clamp(0.0, 1.0));
        progress.message = progress.message.map(|it| cut(&storable(&it), Progress::MESSAGE_BYTES));
        progress.counters = progress
            .counters
            .into_iter()
            .filter(|it| it.1.is_finite())
            .take(Progress::COUNTERS)
            .map(|(name, value)| (cut(&storable(&name), Progress::COUNTER_BYTES), value))
            .collect();
        self.said.lock().progress = Some(Reported { progress, at: now.micros() });
    }

    fn line(&self, stream: &str, line: &str, now: Time) {
        let line = storable(&short(line, LINE));
        let mut said = self.said.lock();
        said.tail.push_back(short(&line, TAIL_LINE));
        if said.tail.len() > TAIL {
            said.tail.pop_front();
        }
        said.tail_is_new = true;
        said.lines.push_back((now, stream.to_owned(), line));
        if said.lines.len() > BUFFERED {
            said.lines.pop_front();
            said.dropped += 1;
        }
    }

    /// True once.
    fn begins_to_flush(&self) -> bool {
        !std::mem::replace(&mut self.said.lock().flushes, true)
    }

    fn is_empty(&self) -> bool {
        let said = self.said.lock();
        said.lines.is_empty() && said.progress.is_none() && !said.tail_is_new
    }
}

/// The beginning of a text, at most so many bytes of it.
fn cut(text: &str, most: usize) -> String {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned()
}

fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Writes down what a job has said.
pub(super) async fn flush(
    machine: &Machine,
    scope: &Scope,
    hold: Hold,
    reports: &Reports,
) -> Result<()> {
    let _one_at_a_time = reports.flushing.lock().await;
    if reports.is_empty() {
        return Ok(());
    }
    let (progress, tail, lines, next, unsure) = {
        let mut said = reports.said.lock();
        let tail = said.tail_is_new.then(|| said.tail.iter().cloned().collect::<Vec<_>>());
        said.tail_is_new = false;
        let dropped = std::mem::take(&mut said.dropped);
        let mut lines: Vec<(Time, String, String)> = said.lines.drain(..).collect();
        if let Some((at, ..)) = lines.first().filter(|_| dropped > 0) {
            let note = format!("[... {dropped} lines left out ...]");
            lines.insert(0, (*at, "system".to_owned(), note));
        }
        (said.progress.take(), tail, lines, said.next, said.unsure)
    };
    let (kept, again) = (scope.clone(), lines.clone());
    let (shown, is_fresh) = (progress.clone(), reports.is_fresh);
    let written = machine.db.transaction(move |conn| {
        async move {
            if !journal::show(conn, &kept, hold, shown, tail).await? {
                return Ok(None);
            }
            if lines.is_empty() {
                return Ok(next);
            }
            let expected = next.or(is_fresh.then_some(1));
            let first = match expected {
                Some(first) if !unsure => first,
                _ => journal::last_line(conn, &kept, hold.job).await? + 1,
            };
            // Those that are there although the answer to their commit was lost.
            let there = usize::try_from(first - expected.unwrap_or(first)).unwrap_or(0);
            let numbered: Vec<LogLine> = (first..)
                .zip(lines.into_iter().skip(there))
                .map(|(seq, (at, stream, text))| LogLine { seq, at: at.micros(), stream, text })
                .collect();
            let next = numbered.last().map_or(first, |it| it.seq + 1);
            journal::add_lines(conn, &kept, hold.job, numbered).await?;
            Ok(Some(next))
        }
        .boxed()
    });
    match written.await {
        Ok(next) => {
            let mut said = reports.said.lock();
            (said.next, said.unsure) = (next, false);
            Ok(())
        }
        Err(failure) => {
            // It is said once more; what was said since comes after it.
            let mut said = reports.said.lock();
            (said.tail_is_new, said.unsure) = (true, true);
            said.progress = said.progress.take().or(progress);
            for line in again.into_iter().rev() {
                said.lines.push_front(line);
            }
            while said.lines.len() > BUFFERED {
                said.lines.pop_front();
                said.dropped += 1;
            }
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_as_long_as_a_script_may_tell() {
        let reports = Reports::default();
        let counters = (0..100).map(|it| (format!("{it:0>64}{}", "é".repeat(it)), 1.0)).collect();
        let message = Some(format!("a\0{}", "é".repeat(5000)));
        reports.progress(Progress { fraction: Some(0.5), message, counters }, Time::from_micros(0));
        let shown = reports.said.lock().progress.take().unwrap().progress;
        let message = shown.message.unwrap();
        assert!(message.starts_with("a\u{fffd}é") && message.len() == 1024, "{}", message.len());
        assert_eq!(shown.counters.len(), 64);
        assert!(shown.counters.keys().all(|it| it.len() == 64), "{:?}", shown.counters);
    }
}
