//! Places where a test may end the process as a power cut would: between two durable writes.
//!
//! Without the feature `failpoints`, which only tests switch on, a place is nothing at all. With it,
//! `MODELYARD_FAILPOINT=job.claimed` ends the process by `SIGKILL` the first time it gets there, and
//! `job.claimed@3` the third time.

/// Every place by its name. A test walks the list, and one compares it with the source.
pub const PLACES: &[&str] = &[
    "input.stored",
    "job.submitted",
    "job.claimed",
    "step.done",
    "step.journaled",
    "note.begins",
    "note.written",
    "batch.stored",
    "run.ended",
    "run.noted",
    "run.stored",
    "publish.begins",
    "publish.done",
    "job.ending",
    "job.ended",
    "schedule.fires",
    "schedule.fired",
    "event.telling",
    "event.told",
    "audit.taken",
    "audit.sealing",
    "audit.sealed",
];

/// Ends the process here, if that was asked for.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_place: &'static str) {}

/// Ends the process here, if that was asked for.
#[cfg(feature = "failpoints")]
pub fn reach(place: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static WISH: std::sync::LazyLock<Option<(String, u32)>> = std::sync::LazyLock::new(wish);
    static REACHED: AtomicU32 = AtomicU32::new(0);

    let Some((wanted, times)) = &*WISH else { return };
    if wanted == place && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *times {
        let _we_are_gone =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(feature = "failpoints")]
#[expect(clippy::disallowed_methods, reason = "a test of the real program has no other way in")]
fn wish() -> Option<(String, u32)> {
    let text = std::env::var("MODELYARD_FAILPOINT").ok()?;
    Some(match text.split_once('@') {
        Some((place, times)) => (place.to_owned(), times.parse().ok()?),
        None => (text, 1),
    })
}
