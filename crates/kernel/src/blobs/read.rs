//! Giving content out.

use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flate2::read::DeflateDecoder;
use futures_util::stream::{self, Stream, StreamExt};
use object_store::{ObjectStore, ObjectStoreExt};

use super::store::BlobRow;
use super::write::check;
use super::{CHUNK, failure_of, refused};
use crate::Failure;
use crate::background::compute;

/// Content that is open for reading.
#[derive(Clone, Debug)]
pub struct BlobRead {
    objects: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    row: Arc<BlobRow>,
}

impl BlobRead {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        path: object_store::path::Path,
        row: BlobRow,
    ) -> Self {
        Self { objects, path, row: Arc::new(row) }
    }

    /// Bytes of the content.
    pub fn size_bytes(&self) -> u64 {
        self.row.size_bytes
    }

    /// SHA-256 of the content, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.row.hash
    }

    /// The bytes of `range`, one verified chunk at a time. Ends with an error at the first chunk
    /// that is damaged; [`failure_of`] says what it means for a client that has no answer yet.
    pub fn stream(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let end = range.end.min(self.row.size_bytes);
        let first = usize::try_from(range.start / CHUNK as u64).unwrap_or(usize::MAX);
        let mut offset: u64 = self.row.chunks.0.iter().take(first).map(|it| u64::from(it.0)).sum();
        let mut places = Vec::new();
        for (index, chunk) in self.row.chunks.0.iter().enumerate().skip(first) {
            let begins = (index * CHUNK) as u64;
            if begins >= end || range.start >= end {
                break;
            }
            let from = range.start.saturating_sub(begins);
            let until = (end - begins).min(CHUNK as u64);
            places.push((index, offset..offset + u64::from(chunk.0), from..until));
            offset += u64::from(chunk.0);
        }
        let it = self.clone();
        stream::iter(places).then(move |(index, stored, part)| {
            let it = it.clone();
            async move {
                let plain = it.chunk(index, stored).await.map_err(|error| {
                    tracing::error!(%error, hash = it.row.hash, index, "content cannot be read");
                    io::Error::other(error)
                })?;
                let part = usize::try_from(part.start).unwrap_or(usize::MAX)
                    ..usize::try_from(part.end).unwrap_or(usize::MAX).min(plain.len());
                Ok(if part.start < part.end { plain.slice(part) } else { Bytes::new() })
            }
        })
    }

    /// All of it in memory.
    ///
    /// # Errors
    /// When it is larger than `limit`, or damaged, or cannot be read.
    pub async fn bytes(&self, limit: u64) -> Result<Bytes, Failure> {
        if self.row.size_bytes > limit {
            return Err(Failure::bad_request(
                "content_too_large",
                "this content is too large to be shown in JSON, download it instead",
            ));
        }
        let mut all = BytesMut::with_capacity(usize::try_from(self.row.size_bytes).unwrap_or(0));
        let mut stream = std::pin::pin!(self.stream(0..self.row.size_bytes));
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.map_err(failure_of)?);
        }
        Ok(all.freeze())
    }

    /// The object as it is stored, verified chunk by chunk, for whoever copies it. Ends with an
    /// error at the first chunk that is damaged.
    pub fn stored(&self) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
        let mut offset = 0;
        let places: Vec<(usize, Range<u64>)> = (self.row.chunks.0.iter().enumerate())
            .map(|(index, chunk)| {
                let from = offset;
                offset += u64::from(chunk.0);
                (index, from..offset)
            })
            .collect();
        let it = self.clone();
        stream::iter(places).then(move |(index, stored)| {
            let it = it.clone();
            async move {
                let bytes = it.get(stored).await?;
                it.plain(index, bytes.clone()).await?;
                Ok(bytes)
            }
        })
    }

    async fn chunk(&self, index: usize, stored: Range<u64>) -> Result<Bytes, Failure> {
        let bytes = self.get(stored).await?;
        self.plain(index, bytes).await
    }

    async fn get(&self, stored: Range<u64>) -> Result<Bytes, Failure> {
        let error = match self.objects.get_range(&self.path, stored.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        // Stores differ in what they say of a range that is not there.
        match self.objects.head(&self.path).await {
            Ok(it) if it.size < stored.end => {
                Err(Failure::internal(format!("content is cut off in the store: {error}")))
            }
            _ => Err(refused(error)),
        }
    }

    async fn plain(&self, index: usize, bytes: Bytes) -> Result<Bytes, Failure> {
        let row = Arc::clone(&self.row);
        let work = move || verify(&row, index, bytes);
        if self.row.size_bytes <= 64 << 10 { work() } else { compute(work).await? }
    }
}

fn verify(row: &BlobRow, index: usize, bytes: Bytes) -> Result<Bytes, Failure> {
    let plain = if row.compressed {
        let mut plain = Vec::with_capacity(bytes.len() * 2);
        DeflateDecoder::new(&*bytes)
            .take(CHUNK as u64 + 1)
            .read_to_end(&mut plain)
            .map_err(Failure::internal)?;
        Bytes::from(plain)
    } else {
        bytes
    };
    match row.chunks.0.get(index) {
        Some(chunk) if chunk.1 == check(&plain) => Ok(plain),
        _ => Err(Failure::internal("the check sum of a chunk is wrong")),
    }
}
