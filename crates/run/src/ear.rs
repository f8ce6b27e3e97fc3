//! What a run says becomes the log and the progress of its job.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use modelyard_flow::job::Context;
use modelyard_kernel::{Failure, Progress};

use crate::runner::{Archive, RunJob, Stream, Watcher};

/// Hears a run on behalf of its job. Keeps no checkpoints; who does has a watcher of its own around
/// this one.
#[derive(Clone)]
pub struct Ear(Arc<Context>);

impl Ear {
    /// Of a job.
    pub fn new(context: Arc<Context>) -> Self {
        Self(context)
    }

    /// What the code that is run in a step is told of its job.
    pub fn job(&self, step: &str) -> RunJob {
        RunJob { id: self.0.job(), idempotency_key: self.0.idempotency_key(step) }
    }

    /// The job.
    pub fn context(&self) -> &Arc<Context> {
        &self.0
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ear")
    }
}

#[async_trait]
impl Watcher for Ear {
    fn said(&self, stream: Stream, line: &str) {
        self.0.log(stream.word(), line);
    }

    fn progressed(&self, progress: Progress) {
        self.0.progress(progress);
    }

    async fn checkpointed(&self, _: &str, _: Archive) -> Result<(), Failure> {
        Err(Failure::conflict("checkpoint_not_kept", "work of this kind keeps no checkpoints"))
    }
}
