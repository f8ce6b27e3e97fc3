//! One attempt at a job of a model: its workspace, what is heard of it, and what an earlier attempt
//! left.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use modelyard_flow::job::{Also, Context};
use modelyard_kernel::blobs::BlobRead;
use modelyard_kernel::{Assignment, Failed, Failure, Progress, Verdict};
use modelyard_run::artifact::WRITE;
use modelyard_run::runner::{Archive, Run, RunError, RunJob, Stream, Watcher, Workspace};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::ran::RUN;
use super::{Ml, Model};

/// An archive up to this size needs no file on its way from the store to the workspace.
const IN_MEMORY: u64 = 4 << 20;
/// What the newest checkpoint is noted as.
const CHECKPOINT: &str = "checkpoint";
/// How long a checkpoint waits for an attempt that goes on from it.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The newest checkpoint of a job.
#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    name: String,
    hash: String,
}

/// An attempt at a job, which hears its run.
pub(super) struct Attempt {
    ml: Ml,
    pub(super) context: Context,
    /// The hash of the newest checkpoint, which is kept for the next attempt.
    newest: Mutex<Option<String>>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Attempt").field(&self.context).finish()
    }
}

#[async_trait]
impl Watcher for Attempt {
    fn said(&self, stream: Stream, line: &str) {
        self.context.log(stream.word(), line);
    }

    fn progressed(&self, progress: Progress) {
        self.context.progress(progress);
    }

    async fn checkpointed(&self, name: &str, archive: Archive) -> Result<(), Failure> {
        self.keep(name, archive).await
    }

    async fn is_resumed(&self) -> bool {
        self.context.is_held().await
    }
}

impl Attempt {
    /// The next attempt at a job.
    pub(super) fn new(ml: &Ml, assignment: &Assignment) -> Result<Arc<Self>, Failed> {
        let (ml, context) = (ml.clone(), ml.0.jobs.context(assignment)?);
        Ok(Arc::new(Self { ml, context, newest: Mutex::default() }))
    }

    /// Stores a checkpoint in place of the one before.
    async fn keep(&self, name: &str, archive: Archive) -> Result<(), Failure> {
        let blobs = self.ml.0.artifacts.blobs();
        let stored = Arc::new(self.ml.store(archive).await?);
        let hash = stored.blob().hash.clone();
        let checkpoint = Checkpoint { name: name.to_owned(), hash: hash.clone() };
        let (until, before) = (self.ml.0.clock.now().after(KEPT), self.newest.lock().clone());
        let (keeps, content) = (blobs.clone(), Arc::clone(&stored));
        let keep: Also = Arc::new(move |conn, scope| {
            let (keeps, content) = (keeps.clone(), Arc::clone(&content));
            let before = before.clone();
            async move {
                // It may be the same, which is to stay.
                if let Some(before) = before {
                    keeps.let_go(conn, scope, &before).await?;
                }
                keeps.keep(conn, scope, &content, until).await
            }
            .boxed()
        });
        let noted = self.context.note_with(CHECKPOINT, &checkpoint, keep).await;
        if noted.is_ok() {
            *self.newest.lock() = Some(hash);
        }
        if let Some(stored) = Arc::into_inner(stored) {
            // A commit that nobody answered may have arrived.
            stored
                .settle(noted.as_ref().err().is_none_or(|it| it.verdict == Verdict::Transient))
                .await;
        }
        noted.map_err(|failed| {
            Failure::conflict("checkpoint_not_kept", format!("it was not kept: {}", failed.error))
        })
    }

    /// Lets go of what the job has kept for further attempts, when it needs none: its checkpoint, and
    /// what is on this machine. Should this be missed, the checkpoint goes some days later.
    pub(super) async fn clear(
        &self,
        assignment: &Assignment,
        done: Result<(), Failed>,
    ) -> Result<(), Failed> {
        if !self.needs_directory() {
            return done;
        }
        let is_needed = match &done {
            Ok(()) => false,
            Err(failed) => failed.verdict != Verdict::Permanent && self.context.is_held().await,
        };
        if !is_needed {
            let kept =
                Run::resume(self.work_root(), assignment.job, CancellationToken::new()).await;
            if let Ok(Some(run)) = kept {
                run.workspace.remove().await;
            }
        }
        if let Err(failed) = self.let_go(assignment, &done).await {
            tracing::debug!(failure = failed.error, "a checkpoint stays for some days");
        }
        done
    }

    async fn let_go(
        &self,
        assignment: &Assignment,
        done: &Result<(), Failed>,
    ) -> Result<(), Failed> {
        let newest = self.newest.lock().take();
        // An attempt that had nothing to run left alone what an earlier one noted.
        let newest = match newest {
            Some(hash) => Some(hash),
            None => self.context.done::<Checkpoint>(CHECKPOINT).await?.map(|it| it.hash),
        };
        let Some(hash) = newest else { return Ok(()) };
        let has_ended = match done {
            Ok(()) => true,
            // Whether the process stops or nobody wants the job, and who has it, is not told.
            Err(_) if assignment.cancel.is_cancelled() || !self.context.is_held().await => false,
            Err(failed) => match failed.verdict {
                Verdict::Permanent => true,
                Verdict::Transient => assignment.is_last,
                Verdict::Suspended(_) => false,
            },
        };
        let scope = assignment.caller.permit(WRITE)?.clone();
        let (jobs, blobs) = (self.ml.0.jobs.clone(), self.ml.0.artifacts.blobs().clone());
        let job = assignment.job;
        let let_go = self.ml.0.db.transaction(move |conn| {
            async move {
                if has_ended || !jobs.is_unfinished(conn, &scope, job).await? {
                    blobs.let_go(conn, &scope, &hash).await?;
                }
                Ok(())
            }
            .boxed()
        });
        Ok(let_go.await?)
    }

    pub(super) fn needs_directory(&self) -> bool {
        self.ml.0.model.runner.needs_directory()
    }

    pub(super) fn work_root(&self) -> &Path {
        &self.ml.0.model.work_root
    }
}

impl Ml {
    /// A workspace for an attempt at a job, with the newest checkpoint of earlier ones.
    pub(super) async fn begin(
        &self,
        attempt: &Arc<Attempt>,
        assignment: &Assignment,
    ) -> Result<Run, Failed> {
        let Model { runner, work_root, .. } = &self.0.model;
        let (cancel, ear) = (assignment.cancel.clone(), Arc::<Attempt>::clone(attempt));
        let (id, context) = (attempt.context.job(), &attempt.context);
        let job = RunJob { id, idempotency_key: context.idempotency_key(RUN) };
        if !runner.needs_directory() {
            return Ok(Run::new(Workspace::in_memory(work_root), cancel)
                .with_watcher(ear)
                .for_job(job));
        }
        let run = Run::begin_kept(work_root, assignment.job, cancel).await?;
        let run = run.with_watcher(ear).for_job(job);
        if let Some(checkpoint) = attempt.context.done::<Checkpoint>(CHECKPOINT).await? {
            self.restore(&run, attempt, assignment, checkpoint).await?;
        }
        Ok(run)
    }

    async fn restore(
        &self,
        run: &Run,
        attempt: &Attempt,
        assignment: &Assignment,
        checkpoint: Checkpoint,
    ) -> Result<(), Failed> {
        let (Checkpoint { name, hash }, context) = (checkpoint, &attempt.context);
        let (scope, blobs) = (assignment.caller.permit(WRITE)?, self.0.artifacts.blobs());
        if blobs.kept(&self.0.db, scope, &hash).await?.is_none() {
            context.log("system", &format!("the checkpoint {name} is gone"));
            return Ok(());
        }
        let mut conn = self.0.db.conn().await.map_err(Failure::from)?;
        let blob = blobs.open(&mut conn, scope, &hash).await?;
        drop(conn);
        *attempt.newest.lock() = Some(hash);
        let limits = self.0.model.archive_limits;
        let restored = match self.fetch(&blob).await? {
            Fetched::Memory(archive) => {
                run.workspace.restore_checkpoint(&name, archive, limits).await
            }
            Fetched::File(archive) => {
                run.workspace.restore_checkpoint(&name, archive, limits).await
            }
        };
        match restored {
            // The directory is empty then, and the script begins anew.
            Err(RunError::Archive(problem)) => {
                context.log("system", &format!("the checkpoint cannot be used: {problem}"));
            }
            restored => {
                restored?;
                context.log("system", &format!("goes on from the checkpoint {name}"));
            }
        }
        Ok(())
    }

    /// Content on its way to a workspace.
    pub(super) async fn fetch(&self, blob: &BlobRead) -> Result<Fetched, RunError> {
        let io = |cause| RunError::Io { doing: "fetching an archive".to_owned(), cause };
        if blob.size_bytes() <= IN_MEMORY {
            let archive = blob.bytes(IN_MEMORY).await;
            return Ok(Fetched::Memory(Cursor::new(
                archive.map_err(|it| io(std::io::Error::other(it)))?,
            )));
        }
        let root = self.0.model.work_root.clone();
        let file = modelyard_kernel::background::compute(move || tempfile::tempfile_in(root)).await;
        let file = file.map_err(|it| io(std::io::Error::other(it)))?.map_err(io)?;
        let mut file = tokio::fs::File::from_std(file);
        let mut stream = std::pin::pin!(blob.stream(0..blob.size_bytes()));
        while let Some(bytes) = stream.next().await {
            file.write_all(&bytes.map_err(io)?).await.map_err(io)?;
        }
        file.rewind().await.map_err(io)?;
        Ok(Fetched::File(file.into_std().await))
    }
}

/// Content that was fetched.
pub(super) enum Fetched {
    Memory(Cursor<bytes::Bytes>),
    File(std::fs::File),
}
