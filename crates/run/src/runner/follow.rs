//! Following a script: what it tells in its progress file is passed on while it runs, and the
//! checkpoints that it says are complete are packed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    ArchiveLimits, blocking,
    checkpoint::{self, CheckpointName},
    progress::{News, Tail},
    watcher::{Stream, Watcher},
};

/// How often the progress file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How long a last checkpoint may take when the run is canceled. A server that stops is worth a
/// moment, since the next one goes on from there; longer, and it would be killed.
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

/// Follows one script.
pub struct Follower {
    checkpoints: Checkpoints,
    /// Until it cannot be read any more.
    tail: Option<Tail>,
    /// The newest checkpoint that is not being taken yet. Those before it are of no use.
    announced: Option<CheckpointName>,
    /// One at a time, beside the script.
    taking: Option<BoxFuture<'static, ()>>,
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
                () = taken => self.taking = None,
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
        let Self { checkpoints, announced, taking, .. } = self;
        let rest = async {
            if let Some(taking) = taking {
                taking.await;
            }
            if let Some(name) = announced {
                checkpoints.take(name).await;
            }
        };
        let patience = async {
            cancel.cancelled().await;
            sleep(LAST_CHECKPOINT).await;
        };
        tokio::select! { () = rest => {}, () = patience => {} }
    }

    async fn look(&mut self, for_the_last_time: bool) {
        let Some(mut tail) = self.tail.take_if(|it| it.has_news() || for_the_last_time) else {
            return;
        };
        let read = blocking(move || {
            let news = if for_the_last_time { tail.finish() } else { tail.read() }?;
            Ok((tail, news))
        });
        let News { progress, checkpoint, complaint } = match read.await {
            Ok((tail, news)) => {
                self.tail = Some(tail);
                news
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
        if checkpoint.is_some() {
            self.announced = checkpoint;
        }
    }
}

impl Checkpoints {
    /// Packs a checkpoint and gives it to the watcher.
    fn take(self, name: CheckpointName) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { directory, scratch, limits, watcher } = self;
            let packed = name.clone();
            let packed =
                blocking(move || Ok(checkpoint::pack(&directory, &packed, &scratch, limits)));
            let taken = match packed.await {
                Ok(Ok(archive)) => {
                    let kept = watcher.checkpointed(name.as_str(), archive).await;
                    kept.map_err(|failure| failure.detail().to_owned())
                }
                Ok(Err(reason)) => Err(reason),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = taken {
                let line = format!("the checkpoint `{name}` was not taken: {reason}");
                watcher.said(Stream::Server, &line);
            }
        })
    }
}
