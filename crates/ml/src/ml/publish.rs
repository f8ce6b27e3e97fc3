//! From a workspace to artifacts.

use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Failed, Result};
use modelyard_run::artifact::{ArtifactId, Draft, NewArtifact, NewContent, WRITE};
use modelyard_run::runner::{Archive, Run, RunError};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::Ml;

/// How much of an archive is read at a time.
const READ: usize = 1 << 20;

impl Ml {
    /// Stores the workspace as it is now, and removes it.
    pub(super) async fn archive(
        &self,
        assignment: &Assignment,
        run: Run,
    ) -> Result<Stored, Failed> {
        let blobs = self.0.artifacts.blobs();
        let mut file = match run.workspace.into_archive(self.0.model.archive_limits).await? {
            Archive::Memory(bytes) => {
                let scope = assignment.caller.permit(WRITE)?;
                return Ok(blobs.put_once(&self.0.db, scope, bytes).await?);
            }
            Archive::File(file) => tokio::fs::File::from_std(file),
        };
        let mut writer = blobs.writer();
        loop {
            let mut part = bytes::BytesMut::with_capacity(READ);
            let read = file.read_buf(&mut part).await;
            let doing = "reading an archive".to_owned();
            if read.map_err(|cause| RunError::Io { doing, cause })? == 0 {
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
}
