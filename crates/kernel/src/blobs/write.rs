//! Taking content in.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest, Sha256};

use super::store::BlobRow;
use super::upload::Upload;
use super::{BlobRef, Blobs, CHUNK, Chunk};
use crate::Failure;
use crate::background::compute;

/// Chunks at most this large are compressed where they come; larger ones on a thread for it.
const INLINE: usize = 64 << 10;

/// Takes content in, chunk by chunk, in constant memory. Dropped without [`BlobWriter::finish`] it
/// leaves nothing behind in a directory; an object store forgets unfinished uploads by its policy.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    key: String,
    pending: BytesMut,
    whole: Sha256,
    size: u64,
    /// Decided by the first chunk: what does not shrink is stored as it came.
    compress: Option<bool>,
    chunks: Vec<Chunk>,
    stored: u64,
    upload: Upload,
}

/// Content that is stored but that no row refers to yet.
///
/// Dropped before any row was to refer to it, such as when a client hangs up, it leaves nothing
/// behind in a directory. Afterwards [`Stored::settle`] decides, since the transaction's end does.
#[derive(Debug)]
pub struct Stored {
    pub(super) blob: BlobRef,
    pub(super) key: String,
    pub(super) compressed: bool,
    pub(super) chunks: Vec<Chunk>,
    pub(super) stored_bytes: u64,
    /// Whether another row had referred to the object before: it is not ours to remove.
    known: bool,
    duplicate: AtomicBool,
    /// Whether nothing but this knows of the object.
    unreferred: AtomicBool,
    blobs: Blobs,
}

impl Stored {
    /// Content that was stored before.
    pub(super) fn known(blobs: Blobs, row: BlobRow) -> Self {
        Self {
            blob: BlobRef { hash: row.hash, size_bytes: row.size_bytes },
            key: row.object_key,
            compressed: row.compressed,
            stored_bytes: row.chunks.0.iter().map(|it| u64::from(it.0)).sum(),
            chunks: row.chunks.0,
            known: true,
            duplicate: AtomicBool::new(false),
            unreferred: AtomicBool::new(false),
            blobs,
        }
    }

    /// Hash and size.
    pub fn blob(&self) -> &BlobRef {
        &self.blob
    }

    pub(super) fn mark_referred(&self) {
        self.unreferred.store(false, Ordering::Relaxed);
    }

    pub(super) fn mark_duplicate(&self) {
        self.duplicate.store(true, Ordering::Relaxed);
    }

    /// Removes the object when its content was stored before, or when `used` is false since the
    /// transaction that was to refer to it failed.
    pub async fn settle(self, used: bool) {
        self.mark_referred();
        if !self.known && (!used || self.duplicate.load(Ordering::Relaxed)) {
            self.blobs.remove(&self.key).await;
        }
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if *self.unreferred.get_mut()
            && let Some(directory) = &self.blobs.directory
            && let Err(error) = fs_err::remove_file(directory.join(&self.key))
        {
            tracing::warn!(%error, "content that nobody refers to could not be removed");
        }
    }
}

impl BlobWriter {
    pub(super) fn new(blobs: Blobs) -> Self {
        // A name of its own for each upload: removing one never races with storing the same
        // content again.
        let id = blobs.clock.ulid().to_string();
        // Few directories, so that they soon exist: each new one costs a write to the disk.
        let key = format!("{}/{id}", id.get(25..).unwrap_or("0"));
        let upload = Upload::new(&blobs, &key);
        Self {
            blobs,
            key,
            pending: BytesMut::new(),
            whole: Sha256::new(),
            size: 0,
            compress: None,
            chunks: Vec::new(),
            stored: 0,
            upload,
        }
    }

    /// Bytes taken in so far.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let take = (CHUNK - self.pending.len()).min(rest.len());
            self.pending.extend_from_slice(&rest.split_to(take));
            if self.pending.len() == CHUNK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// When the store refuses; nothing is left behind then.
    pub async fn finish(mut self) -> Result<Stored, Failure> {
        if !self.pending.is_empty() {
            self.flush().await?;
        }
        self.upload.finish().await?;
        let hash = hex(&self.whole.finalize());
        Ok(Stored {
            blob: BlobRef { hash, size_bytes: self.size },
            key: self.key,
            compressed: self.compress.unwrap_or(false),
            chunks: self.chunks,
            stored_bytes: self.stored,
            known: false,
            duplicate: AtomicBool::new(false),
            unreferred: AtomicBool::new(true),
            blobs: self.blobs,
        })
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let plain = self.pending.split().freeze();
        let compress = self.compress;
        let whole = std::mem::take(&mut self.whole);
        let work = move || encode(plain, compress, whole);
        let encoded = if self.size <= INLINE as u64 { work() } else { compute(work).await? };
        self.whole = encoded.whole;
        self.compress = Some(encoded.compressed);
        let length = u32::try_from(encoded.bytes.len()).map_err(Failure::internal)?;
        self.stored += u64::from(length);
        self.chunks.push(Chunk(length, encoded.check));
        self.upload.write(encoded.bytes).await
    }
}

struct Encoded {
    bytes: Bytes,
    check: String,
    compressed: bool,
    whole: Sha256,
}

fn encode(plain: Bytes, compress: Option<bool>, mut whole: Sha256) -> Encoded {
    whole.update(&plain);
    let check = check(&plain);
    if compress == Some(false) {
        return Encoded { bytes: plain, check, compressed: false, whole };
    }
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    match packed {
        // Writing to memory does not fail; a chunk that grew is still right, only longer.
        Ok(packed) if compress == Some(true) || packed.len() < plain.len() - plain.len() / 8 => {
            Encoded { bytes: packed.into(), check, compressed: true, whole }
        }
        _ => Encoded { bytes: plain, check, compressed: false, whole },
    }
}

/// The beginning of a chunk's SHA-256: 64 bits tell damage from content.
pub(super) fn check(plain: &[u8]) -> String {
    hex(&Sha256::digest(plain)[..8])
}

/// What content is known by.
pub(super) fn hash(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
