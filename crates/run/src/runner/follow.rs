//! Following a script: what it tells in its progress file is passed on while it runs, and the
//! checkpoints that it says are complete are packed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ArchiveLimits, blocking,
    checkpoint::Announced,
    progress::{News, Tail},
    watcher::{Stream, Watcher},
};

/// How often the progress file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How long a last checkpoint may take when the run is canceled. A server that stops is worth a
/// moment, since the next one goes on from there; longer, and it would be killed. A run that nobody
/// wants any more is worth none.
const LAST_CHECKPOINT: Duration = Duration::from_secs(3);

/// Where the checkpoints of a script are, and where they go.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub directory: PathBuf,
    /// For archives that are too large for memory.
    pub scratch: PathBuf,
    pub limits: ArchiveLimits,
    pub watcher: Arc<dyn Watcher>,
}

/// What the log says of a checkpoint that was not taken.
type NotTaken = String;

/// Follows one script.
pub struct Follower {
    checkpoints: Checkpoints,
    /// Until it cannot be read any more.
    tail: Option<Tail>,
    /// The newest checkpoint that is not being taken yet. Those before it are of no use.
    announced: Option<Announced>,
    /// One at a time, beside the script.
    taking: Option<BoxFuture<'static, Result<(), NotTaken>>>,
}

impl Follower {
    pub fn new(checkpoints: Checkpoints, tail: Tail) -> Self {
        Self { checkpoints, tail: Some(tail), announced: None, taking: None }
    }

    /// Follows the script until it has ended.
    pub async fn follow(&mut self, ended: &CancellationToken) {
        loop {
            let taken = async {
                match &mut self.taking {
                    Some(taking) => taking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                taken = taken => {
                    self.taking = None;
                    self.look(false).await;
                    self.told(taken);
                }
                () = sleep(POLL) => self.look(false).await,
            }
            if self.taking.is_none() {
                self.taking = self.announced.take().map(|it| self.checkpoints.clone().take(it));
            }
        }
    }

    /// Hears the last of what the script told. What it finished is complete without checkpoints;
    /// else the last one that it announced is taken.
    pub async fn finish(mut self, well: bool, cancel: &CancellationToken) {
        self.look(true).await;
        if well {
            return;
        }
        let watcher = Arc::clone(&self.checkpoints.watcher);
        let rest = async {
            if let Some(taking) = self.taking.take() {
                let taken = taking.await;
                self.told(taken);
            }
            if let Some(announced) = self.announced.take() {
                let taken = self.checkpoints.clone().take(announced).await;
                self.told(taken);
            }
        };
        let patience = async {
            cancel.cancelled().await;
            let resumed = async {
                if watcher.is_resumed().await {
                    std::future::pending::<()>().await;
                }
            };
            // Also when nobody says.
            let _out_of_patience = timeout(LAST_CHECKPOINT, resumed).await;
        };
        tokio::select! { () = rest => {}, () = patience => {} }
    }

    /// When there is a newer one, nobody misses the one that was not taken.
    fn told(&self, taken: Result<(), NotTaken>) {
        if let Err(line) = taken
            && self.announced.is_none()
        {
            self.checkpoints.watcher.said(Stream::Server, &line);
        }
    }

    async fn look(&mut self, for_the_last_time: bool) {
        let Some(mut tail) = self.tail.take_if(|it| it.has_news() || for_the_last_time) else {
            return;
        };
        let directory = self.checkpoints.directory.clone();
        let read = blocking(move || {
            let mut news = if for_the_last_time { tail.finish() } else { tail.read() }?;
            let announced = match news.checkpoint.take() {
                Some(name) => Some(Announced::look(&directory, name, tail.time()?)),
                None => None,
            };
            Ok((tail, news, announced))
        });
        let (News { progress, complaint, .. }, announced) = match read.await {
            Ok((tail, news, announced)) => {
                self.tail = Some(tail);
                (news, announced)
            }
            Err(error) => {
                tracing::warn!(%error, "the progress of a script is not heard any more");
                return;
            }
        };
        let watcher = &self.checkpoints.watcher;
        if let Some(complaint) = complaint {
            watcher.said(Stream::Server, &complaint);
        }
        if let Some(progress) = progress {
            watcher.progressed(progress);
        }
        if announced.is_some() {
            self.announced = announced;
        }
    }
}

impl Checkpoints {
    /// Packs a checkpoint and gives it to the watcher.
    fn take(self, announced: Announced) -> BoxFuture<'static, Result<(), NotTaken>> {
        Box::pin(async move {
            let Self { directory, scratch, limits, watcher } = self;
            let name = announced.name.clone();
            let packed = blocking(move || Ok(announced.pack(&directory, &scratch, limits)));
            let taken = match packed.await {
                Ok(Ok(archive)) => {
                    let stored = watcher.checkpointed(name.as_str(), archive).await;
                    stored.map_err(|failure| failure.detail().to_owned())
                }
                Ok(Err(reason)) => Err(reason),
                Err(error) => Err(error.to_string()),
            };
            taken.map_err(|reason| format!("the checkpoint `{name}` was not taken: {reason}"))
        })
    }
}
