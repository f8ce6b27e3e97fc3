//! One attempt at a job of a model: its workspace, what is heard of it, and what an earlier attempt
//! left.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use modelyard_flow::job::{Also, Context};
use modelyard_kernel::blobs::BlobRead;
use modelyard_kernel::{Assignment, Failed, Failure, Progress, Ulid, Verdict};
use modelyard_run::artifact::WRITE;
use modelyard_run::runner::{Archive, Run, RunError, Stream, Watcher, Workspace};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

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

/// Hears a run on behalf of its job.
struct Ear {
    ml: Ml,
    context: Arc<Context>,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ear")
    }
}

#[async_trait]
impl Watcher for Ear {
    fn said(&self, stream: Stream, line: &str) {
        self.context.log(word(stream), line);
    }

    fn progressed(&self, progress: Progress) {
        self.context.progress(progress);
    }

    async fn checkpointed(&self, name: &str, archive: Archive) -> Result<(), Failure> {
        self.ml.keep_checkpoint(&self.context, name, archive).await
    }
}

/// What a stream is called in the log of a job.
pub(super) fn word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Server => "system",
    }
}

impl Ml {
    /// A workspace for an attempt at a job, with the newest checkpoint of earlier ones.
    pub(super) async fn begin(
        &self,
        context: &Arc<Context>,
        assignment: &Assignment,
    ) -> Result<Run, Failed> {
        let Model { runner, work_root, .. } = &self.0.model;
        let cancel = assignment.cancel.clone();
        let ear = Arc::new(Ear { ml: self.clone(), context: Arc::clone(context) });
        if !runner.needs_directory() {
            return Ok(Run::new(Workspace::in_memory(work_root), cancel).with_watcher(ear));
        }
        let run = Run::begin_kept(work_root, assignment.job, cancel).await?.with_watcher(ear);
        if let Some(checkpoint) = context.done::<Checkpoint>(CHECKPOINT).await? {
            self.restore(&run, context, assignment, checkpoint).await?;
        }
        Ok(run)
    }

    async fn restore(
        &self,
        run: &Run,
        context: &Context,
        assignment: &Assignment,
        checkpoint: Checkpoint,
    ) -> Result<(), Failed> {
        let Checkpoint { name, hash } = checkpoint;
        let scope = assignment.caller.permit(WRITE)?;
        let mut conn = self.0.db.conn().await.map_err(Failure::from)?;
        let blob = self.0.artifacts.blobs().open(&mut conn, scope, &hash).await?;
        drop(conn);
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

    async fn keep_checkpoint(
        &self,
        context: &Context,
        name: &str,
        archive: Archive,
    ) -> Result<(), Failure> {
        let blobs = self.0.artifacts.blobs();
        let stored = Arc::new(self.store(archive).await?);
        let hash = stored.blob().hash.clone();
        let checkpoint = Checkpoint { name: name.to_owned(), hash };
        let until = self.0.clock.now().after(KEPT);
        let (keeps, content) = (blobs.clone(), Arc::clone(&stored));
        let keep: Also = Arc::new(move |conn, scope| {
            let (keeps, content) = (keeps.clone(), Arc::clone(&content));
            async move { keeps.keep(conn, scope, &content, until).await }.boxed()
        });
        let noted = context.note_with(CHECKPOINT, &checkpoint, keep).await;
        noted.map_err(|failed| {
            Failure::conflict("checkpoint_not_kept", format!("it was not kept: {}", failed.error))
        })
    }

    /// Removes what a job has kept on this machine, when its end says that nobody will need it: it has
    /// one, or another process does it by now.
    pub(super) async fn clear(
        &self,
        context: &Context,
        job: Ulid,
        done: Result<(), Failed>,
    ) -> Result<(), Failed> {
        if !self.0.model.runner.needs_directory() {
            return done;
        }
        let is_needed = match &done {
            Ok(()) => false,
            Err(failed) => failed.verdict != Verdict::Permanent && context.is_held().await,
        };
        if !is_needed {
            let kept = Run::resume(&self.0.model.work_root, job, CancellationToken::new()).await;
            if let Ok(Some(run)) = kept {
                run.workspace.remove().await;
            }
        }
        done
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
