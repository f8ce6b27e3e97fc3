//! Batches: a file of any size is predicted for, or trained with, as one job.
//!
//! The file is stored while it comes ([`http`]) and read again by the job, which cuts it into chunks,
//! the same ones in each attempt ([`Reader`]). A few chunks are done at a time, each as a request of its
//! own would be, and what came of each is written down at once ([`work`]): a job that begins again goes
//! on where it was. At the end the results become one artifact ([`result`]).

mod chunk;
pub(super) mod http;
mod intake;
mod json;
mod model;
mod predict;
mod read;
mod result;
mod sheet;
mod source;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod train;
mod work;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_flow::job::{JobId, NewJob, Wishes};
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Caller, Failure, Permission, Result};
use modelyard_run::artifact::ArtifactId;

pub use chunk::{Chunk, Content, Sizes};
use model::Options;
pub use model::{Batch, Operation, Shape, StoredFile};
pub use read::{Look, Reader};
pub use split::Format;

use super::predict::NotATraining;
use super::{Ml, PREDICT, Submitted, TRAIN};

pub(super) const PREDICT_JOB: &str = "ml.batch-predict";
pub(super) const TRAIN_JOB: &str = "ml.batch-train";

/// How long a file is kept from when its job may begin, unless that completes sooner: one that failed
/// may be tried again by hand.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Operation {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Predict => PREDICT_JOB,
            Self::Train => TRAIN_JOB,
        }
    }

    pub(super) fn permission(self) -> Permission {
        match self {
            Self::Predict => PREDICT,
            Self::Train => TRAIN,
        }
    }
}

impl Ml {
    /// Refuses a batch that could not be done, before its file is sent.
    async fn check_batch(&self, caller: &Caller, options: &Options) -> Result<()> {
        if let Some(id) = options.config_id {
            self.0.configs.get(caller, id).await?;
        }
        let Some(id) = options.artifact_id else { return Ok(()) };
        match self.training(caller, id).await? {
            Ok(_) => Ok(()),
            Err(NotATraining::Missing) => Err(Failure::missing(
                "artifact_missing",
                format!("Training artifact {id} not found"),
            )),
            Err(NotATraining::OtherKind | NotATraining::Failed(_)) => Err(Failure::bad_request(
                "artifact_unusable",
                format!("artifact {id} is no training that went well"),
            )),
        }
    }

    /// Asks for a batch, whose file is `stored`.
    async fn submit_batch(
        &self,
        caller: &Caller,
        operation: Operation,
        batch: Batch,
        stored: Stored,
        wishes: Wishes,
    ) -> Result<Submitted> {
        let inner = &self.0;
        let scope = caller.permit(operation.permission())?.clone();
        let artifact_id = ArtifactId::new(&inner.clock);
        let now = inner.clock.now();
        let until = wishes.run_at.unwrap_or(now).max(now).after(KEPT);
        let new = NewJob {
            artifact: Some(artifact_id.0),
            owner: Some(caller.subject().to_owned()),
            wishes,
            ..NewJob::new(JobId::new(&inner.clock), operation.kind(), serde_json::to_vec(&batch)?)
        };
        let stored = Arc::new(stored);
        let (jobs, blobs) = (inner.jobs.clone(), inner.artifacts.blobs().clone());
        let kept = Arc::clone(&stored);
        let submit = inner.db.transaction(move |conn| {
            async move {
                let submitted = jobs.submit(conn, &scope, new).await?;
                // One that was asked for before keeps its file itself.
                if !submitted.existed {
                    blobs.keep(conn, &scope, &kept, until).await?;
                }
                Ok(submitted)
            }
            .boxed()
        });
        let submitted = submit.await;
        let stands = match &submitted {
            Ok(it) => !it.existed,
            Err(failure) => failure.is_uncertain(),
        };
        if let Some(stored) = Arc::into_inner(stored) {
            stored.settle(stands).await;
        }
        let submitted = submitted?;
        inner.jobs.wake(&submitted);
        let (id, artifact) = (submitted.job, submitted.artifact.map(ArtifactId));
        let word = match operation {
            Operation::Predict => "prediction",
            Operation::Train => "training",
        };
        let message = format!("Batch {word} job submitted. Job ID: {id}");
        Ok(Submitted { job_id: id.0, artifact_id: artifact.unwrap_or(artifact_id), message })
    }
}
