//! From a workspace to artifacts.

use bytes::Bytes;
use modelyard_flow::job::JobId;
use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Failed, Failure, Result};
use modelyard_run::artifact::{ArtifactId, Draft, NewArtifact, NewContent};
use modelyard_run::config::ConfigId;
use modelyard_run::runner::{Run, RunError};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::{Ml, failed};

/// How much of an archive is read at a time.
const READ: usize = 1 << 20;

impl Ml {
    /// Stores the workspace as it is now.
    pub(super) async fn archive(&self, run: &Run) -> Result<Stored, Failed> {
        let archive = run.workspace.archive(self.0.model.archive_limits).await.map_err(failed)?;
        let open = fs_err::tokio::File::open(&archive.path).await;
        let doing = "reading an archive".to_owned();
        let mut file = open.map_err(|cause| failed(RunError::Io { doing, cause }))?;
        let mut writer = self.0.artifacts.blobs().writer();
        loop {
            let mut part = bytes::BytesMut::with_capacity(READ);
            let read = file.read_buf(&mut part).await;
            let doing = "reading an archive".to_owned();
            if read.map_err(|cause| failed(RunError::Io { doing, cause }))? == 0 {
                break;
            }
            writer.write(part.freeze()).await?;
        }
        Ok(writer.finish().await?)
    }

    /// An artifact to be published.
    pub(super) async fn draft(
        &self,
        id: Option<ArtifactId>,
        parent: Option<ArtifactId>,
        data: Value,
        content: NewContent,
    ) -> Result<Draft> {
        let new = NewArtifact { id, tags: None, data, parent: Some(parent) };
        self.0.artifacts.draft(new, Some(content)).await
    }

    /// Publishes artifacts, all or none; nothing when the job was cancelled meanwhile.
    pub(super) async fn publish(
        &self,
        assignment: &Assignment,
        drafts: Vec<Draft>,
        link: Option<ConfigId>,
    ) -> Result<(), Failed> {
        let written = self.write(assignment, &drafts, link).await;
        for draft in drafts {
            draft.settle(written.as_ref().err().is_none_or(Failure::is_uncertain)).await;
        }
        Ok(written?)
    }

    async fn write(
        &self,
        assignment: &Assignment,
        drafts: &[Draft],
        link: Option<ConfigId>,
    ) -> Result<()> {
        let inner = &self.0;
        let scope = assignment.caller.permit(super::TRAIN)?;
        let mut tx = inner.db.begin().await?;
        if !inner.jobs.may_publish(&mut tx, scope, JobId(assignment.job)).await? {
            return Err(Failure::conflict("job_canceled", "the job was canceled"));
        }
        for draft in drafts {
            inner.artifacts.insert(&mut tx, scope, draft).await?;
        }
        if let (Some(config), Some(root)) = (link, drafts.first()) {
            inner.configs.link_in(&mut tx, scope, config, root.id()).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Whether an earlier attempt at this job, before a crash, has published already.
    pub(super) async fn is_published(&self, assignment: &Assignment) -> Result<bool> {
        let Some(id) = assignment.artifact.map(ArtifactId) else { return Ok(false) };
        Ok(self.0.artifacts.find(&assignment.caller, id).await?.is_some())
    }
}

/// A frame as content.
pub(super) fn frame_content(frame: &modelyard_run::frame::Frame) -> Result<NewContent> {
    Ok(NewContent::Frame(Bytes::from(serde_json::to_vec(frame)?)))
}
