//! From a workspace to artifacts.

use modelyard_kernel::blobs::Stored;
use modelyard_kernel::{Assignment, Failed, Failure, Result};
use modelyard_run::artifact::{ArtifactId, Draft, NewArtifact, NewContent, WRITE};
use modelyard_run::runner::{Archive, Run};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::Ml;

/// How much of an archive is read at a time.
const READ: usize = 1 << 20;

impl Ml {
    /// Stores the workspace as it is now.
    pub(super) async fn archive(
        &self,
        assignment: &Assignment,
        run: &Run,
    ) -> Result<Stored, Failed> {
        match run.workspace.archive(self.0.model.archive_limits).await? {
            Archive::Memory(bytes) => {
                let scope = assignment.caller.permit(WRITE)?;
                Ok(self.0.artifacts.blobs().put_once(&self.0.db, scope, bytes).await?)
            }
            file @ Archive::File(_) => Ok(self.store(file).await?),
        }
    }

    /// Stores an archive.
    pub(super) async fn store(&self, archive: Archive) -> Result<Stored> {
        let blobs = self.0.artifacts.blobs();
        let mut file = match archive {
            Archive::Memory(bytes) => return blobs.put(bytes).await,
            Archive::File(file) => tokio::fs::File::from_std(file),
        };
        let mut writer = blobs.writer();
        loop {
            let mut part = bytes::BytesMut::with_capacity(READ);
            if file.read_buf(&mut part).await.map_err(Failure::internal)? == 0 {
                break;
            }
            writer.write(part.freeze()).await?;
        }
        writer.finish().await
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
