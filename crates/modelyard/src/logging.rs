//! Logs: to standard error, through a thread of their own, so that no request waits for a terminal.

use std::io::{BufWriter, IsTerminal, stderr};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Lines that may wait to be written; more are dropped, and counted by the next one.
const LINES: usize = 64_000;

/// Writes what is left of the log when it is dropped: whoever has started logging holds it until the
/// end.
#[derive(Debug)]
#[must_use]
pub struct Log {
    _guard: WorkerGuard,
}

/// Starts logging, once; a program that has set up its own keeps it.
pub fn start(settings: &Settings) -> Log {
    // The settings are checked.
    let filter = EnvFilter::new(&settings.logging.level);
    let (writer, guard) = writer();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(stderr().is_terminal());
    let _kept_when_there_is_one = match settings.logging.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Console => builder.with_target(false).try_init(),
    };
    Log { _guard: guard }
}

fn writer() -> (NonBlocking, WorkerGuard) {
    // Lines that come together are written together.
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 << 10, stderr()))
}
