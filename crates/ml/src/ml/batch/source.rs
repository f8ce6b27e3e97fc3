//! The chunks of a stored file, read as they are needed.

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
    ended: bool,
}

/// What is cut next.
enum Piece {
    Bytes(Bytes),
    End,
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
            ended: false,
        })
    }

    /// The next chunk. No other is in memory, since a few bytes of a file may be large ones.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, Failed> {
        let mut piece = None;
        loop {
            let reader = self.reader.take();
            let mut reader =
                reader.ok_or_else(|| Failure::internal("a file is read twice at once"))?;
            let cut = move || {
                let taken = match piece {
                    Some(Piece::Bytes(bytes)) => reader.push(&bytes),
                    Some(Piece::End) => reader.finish(),
                    None => Ok(()),
                };
                let chunk = taken.map(|()| reader.next_chunk());
                (reader, chunk)
            };
            let (reader, chunk) = compute(cut).await?;
            self.reader = Some(reader);
            let chunk = chunk.map_err(changed)?;
            if chunk.is_some() || self.ended {
                return Ok(chunk);
            }
            piece = Some(self.piece().await?);
        }
    }

    async fn piece(&mut self) -> Result<Piece, Failed> {
        while self.rest.is_empty() {
            match self.stream.next().await {
                Some(bytes) => self.rest = bytes.map_err(failure_of)?,
                None => {
                    self.ended = true;
                    return Ok(Piece::End);
                }
            }
        }
        Ok(Piece::Bytes(self.rest.split_to(PIECE.min(self.rest.len()))))
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
