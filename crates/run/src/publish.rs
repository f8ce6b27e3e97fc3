//! The end of a job that made artifacts: they appear and the job's record ends in one transaction,
//! so that after a crash either both have happened or neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, TryFutureExt};
use modelyard_flow::job::{Hold, JobId, Jobs};
use modelyard_kernel::{Assignment, Db, Failed, Failure, Permission, Result, failpoint};

use crate::artifact::{ArtifactId, Artifacts, Draft};
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

    /// Stores the artifacts and records the end of the job. An outage of the database is waited out.
    ///
    /// # Errors
    /// `job_canceled` when nobody wants the result any more, or another process does the job by now;
    /// and when the database refuses: nothing is stored then.
    pub async fn publish(
        &self,
        assignment: &Assignment,
        permission: Permission,
        publication: Publication,
    ) -> Result<()> {
        let scope = assignment.caller.permit(permission)?.clone();
        let Publication { drafts, link, failed } = publication;
        let (hold, first) = (Hold::from(assignment), drafts.first().map(Draft::id));
        if let Err(failure) = self.jobs.flush(&scope, hold).await {
            tracing::warn!(%failure, job = %hold.job, "the last words of a job are lost");
        }
        failpoint::reach("publish.begins");
        let (drafts, failed) = (Arc::new(drafts), Arc::new(failed));
        let uncertain = AtomicBool::new(false);
        let write = || {
            let (it, scope) = (self.clone(), scope.clone());
            let (drafts, failed) = (Arc::clone(&drafts), Arc::clone(&failed));
            let written = self.db.transaction(move |conn| {
                async move {
                    let outcome = (*failed).as_ref().map_or(Ok(first.map(|id| id.0)), Err);
                    it.jobs.end(conn, &scope, hold, outcome).await?;
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
            written.inspect_err(|it| {
                uncertain.fetch_or(it.is_uncertain(), Ordering::Relaxed);
            })
        };
        let mut written = self.jobs.patiently(assignment, write).await;
        if uncertain.load(Ordering::Relaxed)
            && written.as_ref().is_err_and(|it| !it.is_uncertain())
            && self.is_published(assignment, first).await
        {
            // The commit that nobody answered had arrived.
            written = Ok(());
        }
        failpoint::reach("publish.done");
        let stands = written.as_ref().err().is_none_or(Failure::is_uncertain);
        for draft in Arc::into_inner(drafts).into_iter().flatten() {
            draft.settle(stands).await;
        }
        written
    }

    async fn is_published(&self, assignment: &Assignment, first: Option<ArtifactId>) -> bool {
        let (Some(id), caller) = (first, &assignment.caller) else { return false };
        let ended = self.jobs.get(caller, JobId(assignment.job)).await;
        ended.is_ok_and(|it| it.status.is_final()) && self.artifacts.get(caller, id).await.is_ok()
    }
}
