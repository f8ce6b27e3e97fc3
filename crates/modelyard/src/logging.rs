//! Logs: to standard error, through a thread of their own, so that no request waits for a terminal.

use std::fmt::{self, Write as _};
use std::io::{BufWriter, IsTerminal, stderr};

use tracing::field::Field;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{self, debug_fn};

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
        LogFormat::Console => {
            builder.with_target(false).fmt_fields(debug_fn(write_field).delimited(" ")).try_init()
        }
    };
    Log { _guard: guard }
}

/// A field on one line: what others wrote, such as the cause of a failure, begins no line that looks like one of
/// ours, and does nothing to a terminal.
fn write_field(
    writer: &mut format::Writer<'_>,
    field: &Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(OnOneLine(writer), "{value:?}")
}

/// Writes what controls something as it is written in Rust.
struct OnOneLine<W>(W);

impl<W: fmt::Write> fmt::Write for OnOneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(is_control) {
            let mut rest = part.chars();
            match rest.next_back() {
                Some(last) if is_control(last) => {
                    write!(self.0, "{}{}", rest.as_str(), last.escape_default())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether it may begin another line, or move what is shown.
fn is_control(it: char) -> bool {
    it.is_control() || matches!(it, '\u{2028}' | '\u{2029}')
}

fn writer() -> (NonBlocking, WorkerGuard) {
    // Lines that come together are written together.
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 << 10, stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        let mut written = String::new();
        let cause = format_args!("a\nb\r\n\u{1b}[31mc\u{2028}d").to_string();
        write!(OnOneLine(&mut written), "{cause}").unwrap();
        assert_eq!(written, "a\\nb\\r\\n\\u{1b}[31mc\\u{2028}d");
        written.clear();
        write!(OnOneLine(&mut written), "nothing to change: ä").unwrap();
        assert_eq!(written, "nothing to change: ä");
    }
}
