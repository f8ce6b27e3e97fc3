//! The chunks of a stored file, read as they are needed.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use modelyard_kernel::background::compute;
use modelyard_kernel::blobs::failure_of;
use modelyard_kernel::{Assignment, Failed, Failure};

use super::chunk::{Chunk, Failures};
use super::model::{Batch, Operation};
use super::read::{PIECE, Reader};
use super::split::Broken;
use crate::ml::Ml;

/// A file that is being read.
pub(super) struct Source {
    stream: BoxStream<'static, io::Result<Bytes>>,
    /// What was read of it and not cut yet.
    rest: Bytes,
    reader: Option<Reader>,
    ready: VecDeque<Chunk>,
    ended: bool,
}

impl Source {
    pub(super) async fn open(
        ml: &Ml,
        assignment: &Assignment,
        batch: &Batch,
        operation: Operation,
    ) -> Result<Self, Failed> {
        let scope = assignment.caller.permit(operation.permission())?;
        let (db, blobs) = (&ml.0.db, ml.0.artifacts.blobs());
        if blobs.kept(db, scope, &batch.hash).await?.is_none() {
            return Err(Failed::new(
                "RuntimeError",
                "the file was not kept for so long; send it again",
            ));
        }
        let mut conn = db.conn().await.map_err(Failure::from)?;
        let blob = blobs.open(&mut conn, scope, &batch.hash).await?;
        let (shape, sizes) = (batch.shape.clone(), batch.sizes(operation));
        let group_by = batch.options.group_by.as_deref();
        let reader = Reader::new(batch.format, shape, group_by, sizes).map_err(changed)?;
        Ok(Self {
            stream: blob.stream(0..blob.size_bytes()).boxed(),
            rest: Bytes::new(),
            reader: Some(reader),
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// The next chunk.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, Failed> {
        while self.ready.is_empty() && !self.ended {
            if self.rest.is_empty() {
                match self.stream.next().await {
                    Some(bytes) => self.rest = bytes.map_err(failure_of)?,
                    None => self.ended = true,
                }
            }
            let piece = self.rest.split_to(PIECE.min(self.rest.len()));
            let reader = self.reader.take();
            let mut reader =
                reader.ok_or_else(|| Failure::internal("a file is read twice at once"))?;
            let ended = self.ended;
            let cut = move || {
                let chunks = if ended { reader.finish() } else { reader.push(&piece) };
                (reader, chunks)
            };
            let (reader, chunks) = compute(cut).await?;
            self.reader = Some(reader);
            self.ready.extend(chunks.map_err(changed)?);
        }
        Ok(self.ready.pop_front())
    }

    /// Rows of what was read so far that could not be used.
    pub(super) fn into_failures(self) -> Failures {
        self.reader.map(|it| it.failures().clone()).unwrap_or_default()
    }
}

/// It was looked at before it was accepted.
fn changed(broken: Broken) -> Failed {
    Failed::new("RuntimeError", format!("the file cannot be read any more: {}", broken.0))
}
