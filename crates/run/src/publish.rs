//! The end of a job that made artifacts: they appear and the job's record ends in one transaction,
//! so that after a crash either both have happened or neither.

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job::{JobId, Jobs};
use modelyard_kernel::{Assignment, Db, Failed, Failure, Permission, Result};

use crate::artifact::{Artifacts, Draft};
use crate::config::{ConfigId, Configs};

/// Publishes for the jobs of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    db: Db,
    jobs: Jobs,
    artifacts: Artifacts,
    configs: Configs,
}

/// What came of a job.
#[derive(Debug)]
pub struct Publication {
    /// The artifacts; the first is the job's result.
    pub drafts: Vec<Draft>,
    /// The config that the first is linked to.
    pub link: Option<ConfigId>,
    /// Why the job failed, if it did: its artifacts then hold what there is to look at.
    pub failed: Option<Failed>,
}

impl Publisher {
    /// A publisher for one service.
    pub fn new(db: Db, jobs: Jobs, artifacts: Artifacts, configs: Configs) -> Self {
        Self { db, jobs, artifacts, configs }
    }

    /// Stores the artifacts and records the end of the job.
    ///
    /// # Errors
    /// `job_canceled` when nobody wants the result any more, and when the database refuses: nothing
    /// is stored then.
    pub async fn publish(
        &self,
        assignment: &Assignment,
        permission: Permission,
        publication: Publication,
    ) -> Result<()> {
        let scope = assignment.caller.permit(permission)?.clone();
        let Publication { drafts, link, failed } = publication;
        let (job, drafts) = (JobId(assignment.job), Arc::new(drafts));
        let (it, kept) = (self.clone(), Arc::clone(&drafts));
        let written = self.db.transaction(move |conn| {
            async move {
                let first = drafts.first().map(Draft::id);
                let outcome = failed.as_ref().map_or(Ok(first.map(|id| id.0)), Err);
                it.jobs.end(conn, &scope, job, outcome).await?;
                for draft in drafts.iter() {
                    it.artifacts.insert(conn, &scope, draft).await?;
                }
                if let (Some(config), Some(root)) = (link, first) {
                    it.configs.link_in(conn, &scope, config, root).await?;
                }
                Ok(())
            }
            .boxed()
        });
        let written = written.await;
        let stands = written.as_ref().err().is_none_or(Failure::is_uncertain);
        for draft in Arc::into_inner(kept).into_iter().flatten() {
            draft.settle(stands).await;
        }
        written
    }
}
