//! Following a job: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use modelyard_kernel::{Caller, Kind, Result};

use super::{JobId, Jobs};

/// Lines of an event stream at a time; a line has at most some thousand bytes.
const LINES: i64 = 200;

/// What a follower wants to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// How often to look.
    pub(super) interval: Duration,
    /// Lines after this number are events of their own.
    pub(super) lines_after: Option<i64>,
}

/// What has been sent.
#[derive(Debug)]
struct Follower {
    jobs: Jobs,
    caller: Caller,
    id: JobId,
    wish: Wish,
    last_line: i64,
    /// Whether there may be more to send at once.
    is_behind: bool,
}

/// The record every interval until it has ended, and, where that is wished, the lines that the job
/// prints. Lines have their number as event id, so that a follower that comes back goes on with the
/// next one.
pub(super) fn follow(
    jobs: Jobs,
    caller: Caller,
    id: JobId,
    wish: Wish,
) -> impl Stream<Item = Result<String, Infallible>> {
    let last_line = wish.lines_after.unwrap_or(0);
    let follower = Follower { jobs, caller, id, wish, last_line, is_behind: true };
    stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        if !std::mem::replace(&mut follower.is_behind, false) {
            let stopping = follower.jobs.machine().background.stopping().clone();
            tokio::select! {
                () = tokio::time::sleep(follower.wish.interval) => {}
                () = stopping.cancelled() => return None,
            }
        }
        let (events, more) = follower.look().await;
        Some((Ok(events), more.then_some(follower)))
    })
}

impl Follower {
    /// What there is to send, and whether there will be more.
    async fn look(&mut self) -> (String, bool) {
        let job = match self.jobs.get(&self.caller, self.id).await {
            Ok(job) => job,
            Err(it) if it.kind() == Kind::Missing => {
                return ("data: {\"status\": \"deleted\"}\n\n".to_owned(), false);
            }
            // The database may be back at the next look.
            Err(_) => return (": retry\n\n".to_owned(), true),
        };
        let mut events = String::new();
        // After the record was read, so that the lines of an ended job are all there.
        if self.wish.lines_after.is_some() {
            match self.add_lines(&mut events).await {
                Some(true) => {}
                Some(false) => {
                    self.is_behind = true;
                    return (events, true);
                }
                None => return (": retry\n\n".to_owned(), true),
            }
        }
        let Ok(record) = serde_json::to_string(&job) else { return (events, false) };
        if self.wish.lines_after.is_some() {
            events.push_str(&format!("id: {}\n", self.last_line));
        }
        events.push_str(&format!("data: {record}\n\n"));
        (events, !job.status.is_final())
    }

    /// Adds some lines, and says whether these are all; `None` when they cannot be read.
    async fn add_lines(&mut self, events: &mut String) -> Option<bool> {
        let lines = self.jobs.lines(&self.caller, self.id, self.last_line, LINES).await.ok()?;
        let are_all = lines.len() < usize::try_from(LINES).unwrap_or(usize::MAX);
        for line in lines {
            self.last_line = line.seq;
            let Ok(text) = serde_json::to_string(&line) else { continue };
            events.push_str(&format!("id: {}\nevent: log\ndata: {text}\n\n", line.seq));
        }
        Some(are_all)
    }
}
