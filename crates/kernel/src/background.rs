//! The owner of every task that outlives a request.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;

/// How nice the threads are that compute.
const NICE: i32 = 10;

/// Does what takes longer than a moment, such as reading a large body, on a thread for it: the
/// threads that answer requests must stay free.
///
/// # Errors
/// When the work panics: a defect of ours.
pub async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    on_a_thread(work).await.map_err(Failure::internal)
}

/// Begins `work` on a thread that may block, and that stands back when there is not enough of the
/// machine for all: those that answer requests come first.
#[expect(clippy::disallowed_methods, reason = "this is the one way to such a thread")]
pub fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(|| {
        stand_back();
        work()
    })
}

/// Lowers the priority of this thread, once.
fn stand_back() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        // On Linux this is about the thread, and a lower priority needs no permission.
        let _best_effort = rustix::process::setpriority_process(None, NICE);
    }
}

/// As [`compute`], but here when it is about fewer bytes than [`LARGE`].
///
/// # Errors
/// When the work panics: a defect of ours.
pub async fn compute_sized<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes > LARGE { compute(work).await } else { Ok(work()) }
}

/// Work on fewer bytes of JSON than this is done sooner than a thread is found for it.
pub const LARGE: usize = 64 << 10;

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
