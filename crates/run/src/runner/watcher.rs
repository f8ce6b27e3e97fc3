//! Hearing what a run says while it runs.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use modelyard_kernel::{Failure, Progress};

use super::Archive;

/// Where a line of the log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// The server itself has something to say about the run.
    Server,
}

impl Stream {
    /// What it is called in the log of a job.
    pub fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Server => "system",
        }
    }
}

/// Hears what a run says while it runs: its log, how far it has come, and its checkpoints.
#[async_trait]
pub trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// A line of the log, without its end: at most about 4 KiB of text without NUL.
    ///
    /// Called where the script's pipe is read, once a line, so it must be cheap and not block.
    fn said(&self, stream: Stream, line: &str);

    /// How far the run has come, as it is now. Scripts are heard a few times a second, however
    /// often they tell.
    fn progressed(&self, progress: Progress);

    /// Stores a complete checkpoint, durably, in place of the one before. The next one is not
    /// packed until this ends; the script runs on meanwhile. A failure becomes a line of the log.
    ///
    /// May be dropped when the run has ended well or nobody wants it any more.
    async fn checkpointed(&self, name: &str, archive: Archive) -> Result<(), Failure>;

    /// Whether a run that is canceled will be begun again, such as when the server stops. If not, its
    /// last checkpoint is not waited for.
    async fn is_resumed(&self) -> bool {
        true
    }
}

/// Tells how far a function has come. Cheap to clone, and heard by nobody when nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Option<Arc<dyn Watcher>>);

impl Reporter {
    pub(crate) fn new(watcher: Option<Arc<dyn Watcher>>) -> Self {
        Self(watcher)
    }

    /// Tells the part that is done, from 0 to 1, and what is being done.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let fraction = Some(fraction.clamp(0.0, 1.0)).filter(|it| it.is_finite());
        self.tell(Progress { fraction, message: Some(message.into()), ..Progress::default() });
    }

    /// Tells progress with whatever is counted.
    pub fn tell(&self, progress: Progress) {
        if let Some(watcher) = &self.0 {
            watcher.progressed(progress);
        }
    }

    /// Writes lines to the run's log.
    pub fn say(&self, text: &str) {
        if let Some(watcher) = &self.0 {
            let mut lines = super::output::Lines::default();
            lines.push(text.as_bytes(), &mut |line| watcher.said(Stream::Stdout, line));
            lines.finish(&mut |line| watcher.said(Stream::Stdout, line));
        }
    }
}
