//! The owner of every task that outlives a request.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;

/// Does what takes longer than a moment, such as reading a large body, on a thread for it: the
/// threads that answer requests must stay free.
///
/// # Errors
/// When the work panics: a defect of ours.
pub async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::internal)
}

/// Spawns tasks and ends them: nothing runs that nobody waits for.
#[derive(Clone, Debug, Default)]
pub struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    /// Runs `task` until it ends or, if it never looks at [`Background::stopping`], until shutdown
    /// gives up on it.
    #[expect(clippy::disallowed_methods, reason = "this is the owner")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tasks.track_future(task));
    }

    /// Cancelled when the process is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Asks every task to end and waits for them, at most `patience`. False when some did not.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}
