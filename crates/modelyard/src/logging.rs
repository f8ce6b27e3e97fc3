//! Logs: to standard error, through a thread of their own, so that no request waits for a terminal.

use std::io::{BufWriter, IsTerminal, stderr};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Lines that may wait to be written; more are dropped, and counted by the next one.
const LINES: usize = 64_000;

/// Writes what is left when the process ends.
static GUARD: OnceLock<WorkerGuard> = OnceLock::new();

/// Starts logging, once; a program that has set up its own keeps it.
pub fn start(settings: &Settings) {
    let level = &settings.logging.level;
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (writer, guard) = writer();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(stderr().is_terminal());
    let started = match settings.logging.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Console => builder.with_target(false).try_init(),
    };
    if started.is_ok() {
        let _set_once = GUARD.set(guard);
    }
}

fn writer() -> (NonBlocking, WorkerGuard) {
    // Lines that come together are written together.
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 << 10, stderr()))
}
