//! Code of the service's author, on a thread of its own: it may compute as long as it likes without
//! the server standing still.

use std::{any::Any, future::Future};

use modelyard_kernel::background::on_a_thread;
use tokio_util::sync::CancellationToken;

use super::RunError;

/// Runs `work` to its end, or until nobody waits any more. Its future may stay on one thread.
///
/// Code between two `await`s cannot be interrupted: it is left to finish, but not waited for. It
/// gets a token to look at meanwhile.
pub(crate) async fn run_on_a_thread<F, T>(
    cancel: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> F + Send + 'static,
) -> Result<T, RunError>
where
    F: Future<Output = Result<T, RunError>>,
    T: Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let stop = cancel.child_token();
    // Being dropped counts as being canceled.
    let _guard = stop.clone().drop_guard();
    let inner = stop.clone();
    let thread = on_a_thread(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = inner.cancelled() => Err(RunError::Canceled),
                result = work(inner.clone()) => result,
            }
        })
    });
    let ended = tokio::select! {
        () = stop.cancelled() => return Err(RunError::Canceled),
        ended = thread => ended,
    };
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => Err(RunError::model("Panic", panic_message(panic.as_ref()))),
        Err(Err(_)) => Err(RunError::Canceled),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the model panicked").to_owned()
}
