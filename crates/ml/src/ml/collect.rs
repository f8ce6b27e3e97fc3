//! What a run left, written down before it is published: whatever is killed in between, it is not run
//! again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use modelyard_flow::job::{Also, Context};
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Failed, Failure, Time, failpoint};
use modelyard_run::artifact::{NewContent, WRITE};
use modelyard_run::runner::Run;
use serde::{Deserialize, Serialize};

use super::Ml;
use super::attempt::Attempt;
use super::model::Metadata;
use super::ran::Ran;

/// The step in which a run is collected.
const COLLECT: &str = "collect";
/// Predictions up to this size are in the journal.
const INLINE: usize = 64 << 10;
/// What takes less is sooner done again than written down.
const WORTH: Duration = Duration::from_millis(250);
/// How long what was collected waits to be published.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a run left.
#[derive(Debug)]
pub(super) struct Harvest {
    pub(super) metadata: Metadata,
    /// Why it failed, if it did.
    pub(super) failed: Option<Failed>,
    /// Its workspace.
    pub(super) archive: Arc<Stored>,
    /// The data frame that it predicted, as JSON.
    pub(super) predictions: Option<Predictions>,
}

#[derive(Debug)]
pub(super) enum Predictions {
    Small(Bytes),
    Large(Arc<Stored>),
}

/// The same in the journal: content by its hash.
#[derive(Debug, Serialize, Deserialize)]
struct Journaled {
    metadata: Metadata,
    failed: Option<(String, Option<String>)>,
    archive: String,
    predictions: Option<JournaledPredictions>,
}

#[derive(Debug, Serialize, Deserialize)]
enum JournaledPredictions {
    Small(String),
    Large(String),
}

impl Ml {
    /// What an earlier attempt of the job has collected.
    pub(super) async fn collected(
        &self,
        context: &Context,
        assignment: &Assignment,
    ) -> Result<Option<Harvest>, Failed> {
        let Some(journaled) = context.done::<Journaled>(COLLECT).await? else { return Ok(None) };
        let Journaled { metadata, failed, archive, predictions } = journaled;
        let failed = failed.map(|(error, traceback)| Failed {
            error,
            traceback,
            verdict: modelyard_kernel::Verdict::Permanent,
        });
        let archive = self.kept(assignment, &archive).await?;
        let predictions = match predictions {
            None => None,
            Some(JournaledPredictions::Small(json)) => Some(Predictions::Small(json.into())),
            Some(JournaledPredictions::Large(hash)) => {
                Some(Predictions::Large(self.kept(assignment, &hash).await?))
            }
        };
        Ok(Some(Harvest { metadata, failed, archive, predictions }))
    }

    async fn kept(&self, assignment: &Assignment, hash: &str) -> Result<Arc<Stored>, Failed> {
        let scope = assignment.caller.permit(WRITE)?;
        let kept = self.0.artifacts.blobs().kept(&self.0.db, scope, hash).await?;
        kept.map(Arc::new).ok_or_else(|| {
            Failed::new("RuntimeError", "what the run left was not published in time, and is gone")
        })
    }

    /// Stores what a run left, and writes it down.
    pub(super) async fn collect_run(
        &self,
        attempt: &Attempt,
        assignment: &Assignment,
        ran: Ran,
        run: &Run,
    ) -> Result<Harvest, Failed> {
        let started = ran.started();
        let Ran { metadata, failed, predictions, .. } = ran;
        let predictions = match predictions {
            Some(json) => Some(self.predictions(json).await?),
            None => None,
        };
        let archive = Arc::new(self.archive(assignment, run).await?);
        failpoint::reach("run.stored");
        let failed = failed.map(Failed::told);
        let harvest = Harvest { metadata, failed, archive, predictions };
        self.collect(&attempt.context, &harvest, started).await?;
        Ok(harvest)
    }

    /// Writes down what a run that began at `started` left.
    async fn collect(
        &self,
        context: &Context,
        harvest: &Harvest,
        started: Time,
    ) -> Result<(), Failed> {
        let now = self.0.clock.now();
        if !self.0.model.runner.needs_directory() && now.since(started) < WORTH {
            return Ok(());
        }
        let predictions = match &harvest.predictions {
            None => None,
            Some(Predictions::Small(json)) => {
                let json = String::from_utf8(json.to_vec()).map_err(Failure::internal)?;
                Some(JournaledPredictions::Small(json))
            }
            Some(Predictions::Large(stored)) => {
                Some(JournaledPredictions::Large(stored.blob().hash.clone()))
            }
        };
        let journaled = Journaled {
            metadata: harvest.metadata.clone(),
            failed: harvest.failed.as_ref().map(|it| (it.error.clone(), it.traceback.clone())),
            archive: harvest.archive.blob().hash.clone(),
            predictions,
        };
        let mut contents = vec![Arc::clone(&harvest.archive)];
        if let Some(Predictions::Large(stored)) = &harvest.predictions {
            contents.push(Arc::clone(stored));
        }
        let (blobs, until) = (self.0.artifacts.blobs().clone(), now.after(KEPT));
        let keep: Also = Arc::new(move |conn, scope| {
            let (blobs, contents) = (blobs.clone(), contents.clone());
            async move {
                for content in &contents {
                    blobs.keep(conn, scope, content, until).await?;
                }
                Ok(())
            }
            .boxed()
        });
        context.finish_step(COLLECT, &journaled, started, keep).await
    }

    /// A predicted frame's JSON, stored when it is large.
    async fn predictions(&self, json: Bytes) -> Result<Predictions, Failed> {
        if json.len() <= INLINE {
            return Ok(Predictions::Small(json));
        }
        Ok(Predictions::Large(Arc::new(self.0.artifacts.blobs().put(json).await?)))
    }
}

/// Content for an artifact, once nobody else needs it.
pub(super) fn archive_content(archive: Arc<Stored>) -> Result<NewContent, Failed> {
    Ok(NewContent::Stored(sole(archive)?))
}

/// The same of a data frame.
pub(super) fn frame_content(predictions: Predictions) -> Result<NewContent, Failed> {
    Ok(match predictions {
        Predictions::Small(json) => NewContent::Frame(json),
        Predictions::Large(stored) => NewContent::StoredFrame(sole(stored)?),
    })
}

fn sole(stored: Arc<Stored>) -> Result<Stored, Failed> {
    Ok(Arc::into_inner(stored).ok_or_else(|| Failure::internal("content is still being kept"))?)
}
