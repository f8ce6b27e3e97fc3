//! The job of a batch: chunk after chunk, a few at a time, each written down when it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use modelyard_flow::job::{Also, Context};
use modelyard_kernel::background::compute_sized;
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Failed, Failure, Progress, Time, Verdict};
use modelyard_run::artifact::{Draft, WRITE};
use modelyard_run::config::ConfigId;
use modelyard_run::frame::Frame;
use modelyard_run::runner::{Archive, Run, RunError, RunJob, Stream, Watcher};
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;

use super::chunk::{Chunk, Failures};
use super::model::{Batch, KeptResult, Operation, Order, Outcome};
use super::predict::Predicting;
use super::source::Source;
use crate::ml::{Ml, json_size, promised, read_input};

/// How often a chunk is tried that fails for a reason that may pass.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Results up to this size are in the journal, all of which is read when a job goes on.
const SMALL: usize = 2 << 10;
/// How long the result of a chunk is kept; when it is gone, the chunk is done again.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A batch that is being done.
pub(super) struct Running<'a> {
    pub(super) ml: &'a Ml,
    pub(super) context: &'a Arc<Context>,
    pub(super) assignment: &'a Assignment,
    pub(super) operation: Operation,
    pub(super) batch: &'a Batch,
    pub(super) task: Task,
    pub(super) tally: Mutex<Tally>,
}

/// What is done with each chunk.
pub(super) enum Task {
    Predict(Box<Predicting>),
    Train,
}

/// What an attempt at a chunk came to.
#[derive(Default)]
pub(super) struct Made {
    pub(super) done_rows: u64,
    pub(super) historic_rows: u64,
    pub(super) frame: Option<Frame>,
    /// An artifact of its own, and the config that it is linked to.
    pub(super) artifact: Option<(Draft, ConfigId)>,
}

/// Where a chunk is in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) first_row: u64,
    pub(super) last_row: u64,
    pub(super) rows: u64,
    pub(super) unusable: u64,
}

/// What the chunks came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) chunks: BTreeMap<u64, (Place, Outcome)>,
    pub(super) rows: u64,
    pub(super) done_rows: u64,
    pub(super) historic_rows: u64,
    pub(super) failed_rows: u64,
}

impl Tally {
    fn add(&mut self, place: Place, outcome: Outcome) {
        self.rows += place.rows;
        self.done_rows += outcome.done_rows;
        self.historic_rows += outcome.historic_rows;
        self.failed_rows += if outcome.error.is_some() { place.rows } else { place.unusable };
        self.chunks.insert(place.number, (place, outcome));
    }

    fn progress(&self, of: u64) -> Progress {
        #[expect(clippy::cast_precision_loss, reason = "counters are floats")]
        let number = |it: u64| it as f64;
        let counters = [
            ("rows", self.rows),
            ("failed_rows", self.failed_rows),
            ("chunks", self.chunks.len() as u64),
        ];
        Progress {
            fraction: (of > 0).then(|| number(self.rows) / number(of)),
            message: Some(format!("{} of {of} rows", self.rows)),
            counters: counters.map(|(name, it)| (name.to_owned(), number(it))).into(),
        }
    }
}

impl Ml {
    pub(in crate::ml) async fn do_batch(
        &self,
        operation: Operation,
        mut assignment: Assignment,
    ) -> Result<(), Failed> {
        let id = promised(&assignment)?;
        let context = Arc::new(self.0.jobs.context(&assignment)?);
        let batch = match read_input(&mut assignment).await? {
            Order::Taken(batch) => *batch,
            Order::Stored(file) => self.take_stored(&context, &assignment, operation, file).await?,
        };
        let now = self.0.clock.now().micros();
        let started = context.step("begin", async { Ok(now) }).await.map(Time::from_micros)?;
        let task = match operation {
            Operation::Predict => {
                Task::Predict(Box::new(Predicting::begin(self, &assignment, &batch).await?))
            }
            Operation::Train => Task::Train,
        };
        let (tally, assignment) = (Mutex::default(), &assignment);
        let (context, batch) = (&context, &batch);
        let running = Running { ml: self, context, assignment, operation, batch, task, tally };
        let failures = running.chunks().await?;
        running.publish(id, started, failures).await
    }
}

impl Running<'_> {
    /// Does all chunks that are not done yet, and gives the rows that could not be used.
    async fn chunks(&self) -> Result<Failures, Failed> {
        let Self { ml, assignment, batch, .. } = self;
        let source = Source::open(ml, assignment, batch, self.operation).await?;
        let failures = Mutex::default();
        let mut outcomes = self.outcomes(source, &failures);
        while let Some((place, outcome)) = outcomes.try_next().await? {
            let mut tally = self.tally.lock();
            tally.add(place, outcome);
            self.context.progress(tally.progress(batch.shape.rows()));
        }
        drop(outcomes);
        Ok(failures.into_inner())
    }

    /// Does the chunks of a file, a few at a time. While one is read, others are being done.
    fn outcomes<'s>(
        &'s self,
        source: Source,
        failures: &'s Mutex<Failures>,
    ) -> BoxStream<'s, Result<(Place, Outcome), Failed>> {
        let read = stream::try_unfold(source, move |mut source| async move {
            // Not read before there is a place for it, so that nothing waits in memory.
            let place = self.place().await?;
            let Some(chunk) = source.next().await? else {
                *failures.lock() = source.into_failures();
                return Ok(None);
            };
            Ok(Some((self.chunk(chunk, place), source)))
        });
        read.try_buffer_unordered(self.batch.options.parallel).boxed()
    }

    /// One of the places that all batches of this process share.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Failed> {
        tokio::select! {
            place = self.ml.0.chunks.acquire() => Ok(place.map_err(Failure::internal)?),
            () = self.assignment.cancel.cancelled() => Err(canceled()),
        }
    }

    /// Does a chunk, unless an earlier attempt of the job has. Fails only with the job.
    async fn chunk(
        &self,
        chunk: Chunk,
        _among_all_batches: SemaphorePermit<'_>,
    ) -> Result<(Place, Outcome), Failed> {
        let Chunk { number, first_row, last_row, unusable, .. } = chunk;
        let place = Place { number, first_row, last_row, rows: chunk.rows(), unusable };
        let step = step(number);
        if let Some(outcome) = self.done(&step).await? {
            return Ok((place, outcome));
        }
        let mut attempts = 1;
        let (mut pause, cancel) = (PAUSE, &self.assignment.cancel);
        let made = loop {
            let failed = match self.attempt(&chunk).await {
                Ok(made) => break Ok(made),
                Err(failed) => failed,
            };
            if cancel.is_cancelled() {
                return Err(failed);
            }
            let (rows, error) = (format!("rows {first_row} to {last_row}"), &failed.error);
            if failed.verdict == Verdict::Permanent || attempts == ATTEMPTS {
                self.context.log("system", &format!("{rows} failed: {error}"));
                break Err(failed);
            }
            self.context.log("system", &format!("{rows} are tried again: {error}"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Err(failed),
            }
            (attempts, pause) = (attempts + 1, pause * 2);
        };
        Ok((place, self.write_down(&step, attempts, made).await?))
    }

    /// A workspace for a chunk, whose lines are those of the job.
    pub(super) async fn begin(&self, stage: &'static str, chunk: &Chunk) -> Result<Run, RunError> {
        let run = self.ml.run(stage, self.assignment.cancel.clone()).await?;
        let idempotency_key = self.context.idempotency_key(&step(chunk.number));
        let job = RunJob { id: self.context.job(), idempotency_key };
        Ok(run.with_watcher(Arc::new(Ear(Arc::clone(self.context)))).for_job(job))
    }

    async fn attempt(&self, chunk: &Chunk) -> Result<Made, Failed> {
        match &self.task {
            Task::Predict(it) => self.predict_chunk(it, chunk).await,
            Task::Train => self.train_chunk(chunk).await,
        }
    }

    /// What an earlier attempt of the job made of a chunk, if that is still there.
    async fn done(&self, step: &str) -> Result<Option<Outcome>, Failed> {
        let Some(outcome) = self.context.done::<Outcome>(step).await? else { return Ok(None) };
        if let Some(KeptResult::Large(hash)) = &outcome.result
            && self.stored(hash).await?.is_none()
        {
            return Ok(None);
        }
        Ok(Some(outcome))
    }

    pub(super) async fn stored(&self, hash: &str) -> Result<Option<Stored>, Failed> {
        let scope = self.assignment.caller.permit(WRITE)?;
        let look = || self.ml.0.artifacts.blobs().kept(&self.ml.0.db, scope, hash);
        Ok(self.ml.0.jobs.patiently(self.assignment, look).await?)
    }

    /// Writes down what a chunk came to, together with the artifact that it made.
    async fn write_down(
        &self,
        step: &str,
        attempts: u32,
        made: Result<Made, Failed>,
    ) -> Result<Outcome, Failed> {
        let mut outcome = Outcome { attempts, ..Outcome::default() };
        let (frame, artifact) = match made {
            Ok(Made { done_rows, historic_rows, frame, artifact }) => {
                (outcome.done_rows, outcome.historic_rows) = (done_rows, historic_rows);
                (frame, artifact)
            }
            Err(failed) => {
                outcome.error = Some(short(&failed.error));
                (None, None)
            }
        };
        let mut stored = None;
        if let Some(frame) = frame {
            outcome.columns.clone_from(&frame.columns);
            let size = json_size(&frame);
            let write = move || serde_json::to_string(&frame_rows(frame));
            let json = compute_sized(size, write).await?;
            let json = json.map_err(Failure::from)?;
            if json.len() <= SMALL {
                outcome.result = Some(KeptResult::Small(json));
            } else {
                let put = self.ml.0.artifacts.blobs().put(Bytes::from(json)).await?;
                outcome.result = Some(KeptResult::Large(put.blob().hash.clone()));
                stored = Some(put);
            }
        }
        let (stored, artifact) = (Arc::new(stored), Arc::new(artifact));
        let also = self.also(Arc::clone(&stored), Arc::clone(&artifact));
        self.context.note_with(step, &outcome, also).await?;
        if let Some(stored) = Arc::into_inner(stored).flatten() {
            stored.settle(true).await;
        }
        if let Some((draft, _)) = Arc::into_inner(artifact).flatten() {
            draft.settle(true).await;
        }
        Ok(outcome)
    }

    /// What shares the transaction in which a chunk is written down.
    fn also(&self, stored: Arc<Option<Stored>>, artifact: Arc<Option<(Draft, ConfigId)>>) -> Also {
        let (artifacts, configs) = (self.ml.0.artifacts.clone(), self.ml.0.configs.clone());
        let until = self.ml.0.clock.now().after(KEPT);
        Arc::new(move |conn, scope| {
            let (artifacts, configs) = (artifacts.clone(), configs.clone());
            let (stored, artifact) = (Arc::clone(&stored), Arc::clone(&artifact));
            async move {
                if let Some(stored) = &*stored {
                    artifacts.blobs().keep(conn, scope, stored, until).await?;
                }
                if let Some((draft, config)) = &*artifact {
                    artifacts.insert(conn, scope, draft).await?;
                    configs.link_in(conn, scope, *config, draft.id()).await?;
                }
                Ok(())
            }
            .boxed()
        })
    }
}

/// Hears the runs of all chunks on behalf of their job, which says itself how far it is. A chunk has no
/// checkpoints: it is what is done again.
#[derive(Debug)]
struct Ear(Arc<Context>);

#[async_trait]
impl Watcher for Ear {
    fn said(&self, stream: Stream, line: &str) {
        self.0.log(stream.word(), line);
    }

    fn progressed(&self, _: Progress) {}

    async fn checkpointed(&self, _: &str, _: Archive) -> Result<(), Failure> {
        Ok(())
    }
}

pub(super) fn canceled() -> Failed {
    Failed::new("CancelledError", "the job was canceled")
}

/// What the columns hold is not kept: the batch may be of several opinions.
fn frame_rows(frame: Frame) -> Frame {
    Frame { schema: None, ..frame }
}

/// The step that a chunk is.
fn step(number: u64) -> String {
    format!("chunk-{number:06}")
}

/// An error as it is listed: scripts may say a lot, and PostgreSQL takes no zero characters.
fn short(error: &str) -> String {
    const MOST: usize = 500;
    let error = error.replace('\0', "\u{fffd}");
    match error.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", error.get(..end).unwrap_or_default()),
        None => error,
    }
}
