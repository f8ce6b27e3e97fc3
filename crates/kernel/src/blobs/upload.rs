//! Writing one object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use super::{Blobs, CHUNK, refused};
use crate::Failure;

/// Parts in flight at a time.
const IN_FLIGHT: usize = 4;

/// An object that is being written, in constant memory. Dropped without [`Upload::finish`] it leaves
/// nothing behind in a directory; an object store forgets unfinished uploads by its policy.
#[derive(Debug)]
pub struct Upload {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    /// The bytes while they are few; later they go to `parts`.
    buffer: BytesMut,
    parts: Option<WriteMultipart>,
    /// Bytes of one part, of which several are in flight.
    part: usize,
}

impl Upload {
    pub(super) fn new(blobs: &Blobs, key: &str) -> Self {
        let objects = Arc::clone(&blobs.objects);
        // No object store takes smaller ones; a directory does.
        let part = if blobs.directory.is_some() { CHUNK } else { 5 * CHUNK };
        Self { objects, path: blobs.path(key), buffer: BytesMut::new(), parts: None, part }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        if let Some(parts) = &mut self.parts {
            return put(parts, bytes).await;
        }
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= self.part {
            let upload = self.objects.put_multipart(&self.path).await.map_err(refused)?;
            let parts = self.parts.insert(WriteMultipart::new_with_chunk_size(upload, self.part));
            put(parts, self.buffer.split().freeze()).await?;
        }
        Ok(())
    }

    /// Makes the object appear, whole.
    ///
    /// # Errors
    /// When the store refuses; nothing is left behind then.
    pub async fn finish(self) -> Result<(), Failure> {
        match self.parts {
            Some(parts) => parts.finish().await.map_err(refused)?,
            None => {
                let content = self.buffer.freeze();
                self.objects.put(&self.path, content.into()).await.map_err(refused)?
            }
        };
        Ok(())
    }
}

async fn put(parts: &mut WriteMultipart, bytes: Bytes) -> Result<(), Failure> {
    parts.wait_for_capacity(IN_FLIGHT).await.map_err(refused)?;
    parts.put(bytes);
    Ok(())
}
