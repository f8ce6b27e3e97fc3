//! Content of any size, in a directory or an object store: streamed both ways in constant memory,
//! stored once per hash, compressed where it pays, checked on every read.
//!
//! A blob is cut into chunks of [`CHUNK`] bytes; each is stored compressed or plain and has a check
//! sum of its own, so that a range is read, verified and decompressed without its neighbours. The
//! table `blobs` knows the chunks and counts the references; a blob that nobody refers to any more
//! is removed by [`Blobs::sweep`] after a grace.

mod read;
mod store;
mod upload;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

pub use read::BlobRead;
pub use upload::Upload;
pub use write::{BlobWriter, Stored};

use crate::background::{compute, compute_sized};
use crate::{Clock, Conn, Db, Failure, Kind, Scope, Time};

/// Bytes of content in one chunk.
pub const CHUNK: usize = 1 << 20;

/// How long content that nobody refers to is kept, so that a read that has begun can end.
const GRACE: Duration = Duration::from_secs(3600);

/// How old an upload must be for its parts to be those of a process that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What a row keeps of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// SHA-256 of the content, in hexadecimal.
    pub hash: String,
    /// Bytes of the content.
    pub size_bytes: u64,
}

/// One chunk: bytes as stored, and the beginning of the SHA-256 of its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chunk(u32, String);

/// The objects, cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    prefix: object_store::path::Path,
    /// Where the objects are, when that is a directory of ours.
    directory: Option<PathBuf>,
    clock: Clock,
}

/// The object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error(
        "`{0}` is no address of an object store; give a directory, or an `s3://`, `gs://` or `az://` address"
    )]
    Address(String),
    /// The directory cannot be made.
    #[error("the directory for content cannot be used: {0}")]
    Directory(#[source] std::io::Error),
    /// The store refused, or this build has no support for it.
    #[error("the object store cannot be used: {0}")]
    Store(#[from] object_store::Error),
}

impl Blobs {
    /// Opens a local directory, which is made when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn directory(path: &Path, clock: Clock) -> Result<Self, OpenError> {
        fs_err::create_dir_all(path).map_err(OpenError::Directory)?;
        let objects =
            LocalFileSystem::new_with_prefix(path)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self {
            objects: Arc::new(objects),
            prefix: object_store::path::Path::default(),
            directory: Some(path.to_owned()),
            clock,
        })
    }

    /// Opens an object store by its address: `s3://bucket/path`, `gs://…`, `az://…`, `file:///…`,
    /// each with the options that its provider has (`object_store`'s names, such as
    /// `aws_endpoint`).
    ///
    /// # Errors
    /// When the address is none or this build has no support for the provider.
    pub fn url(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        // Somebody else in the process may have chosen already, which is as good.
        #[cfg(feature = "cloud")]
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let parsed = url::Url::parse(url).map_err(|_| OpenError::Address(url.to_owned()))?;
        let (objects, prefix) = object_store::parse_url_opts(&parsed, options)?;
        Ok(Self { objects: objects.into(), prefix, directory: None, clock })
    }

    /// Takes content in, chunk by chunk.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(self.clone())
    }

    /// Takes content in that is in memory already.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put(&self, content: bytes::Bytes) -> Result<Stored, Failure> {
        let mut writer = self.writer();
        writer.write(content).await?;
        writer.finish().await
    }

    /// As [`Blobs::put`], but writes nothing when the same content is stored already.
    ///
    /// # Errors
    /// When the database or the store refuses.
    pub async fn put_once(
        &self,
        db: &Db,
        scope: &Scope,
        content: bytes::Bytes,
    ) -> Result<Stored, Failure> {
        let (bytes, hashed) = (content.len(), content.clone());
        let hash = compute_sized(bytes, move || write::hash(&hashed)).await?;
        let found = store::find_used(&mut db.conn().await?, scope, &hash).await?;
        match found {
            // Whoever takes the last reference back now leaves the object for [`GRACE`].
            Some(row) => Ok(Stored::known(self.clone(), row)),
            None => self.put(content).await,
        }
    }

    /// Refers to content from a row, in the transaction of that row. Content that is stored
    /// already is not stored twice.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn refer(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        stored: &Stored,
    ) -> Result<BlobRef, Failure> {
        stored.mark_referred();
        let kept = store::refer(conn, scope, stored, self.clock.now()).await?;
        if kept != stored.key {
            stored.mark_duplicate();
        }
        Ok(stored.blob.clone())
    }

    /// Keeps content to which a row may refer later, until then or until `until`. In the transaction of
    /// whatever remembers its hash. Each who keeps it may [let it go](Blobs::let_go) once.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn keep(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        stored: &Stored,
        until: Time,
    ) -> Result<(), Failure> {
        stored.mark_referred();
        let kept = store::keep(conn, scope, stored, self.clock.now(), until).await?;
        if kept != stored.key {
            stored.mark_duplicate();
        }
        Ok(())
    }

    /// Content that was kept; `None` when nobody referred to it in time.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn kept(
        &self,
        db: &Db,
        scope: &Scope,
        hash: &str,
    ) -> Result<Option<Stored>, Failure> {
        let found = store::find(&mut db.conn().await?, scope, hash).await?;
        Ok(found.map(|row| Stored::known(self.clone(), row)))
    }

    /// Content that was kept is of no more use to one who kept it. It goes when that was the last one
    /// and no row refers to it.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn let_go(&self, conn: &mut Conn, scope: &Scope, hash: &str) -> Result<(), Failure> {
        store::let_go(conn, scope, hash, self.clock.now()).await?;
        Ok(())
    }

    /// Takes a reference back, in the transaction of the row that had it.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn release(&self, conn: &mut Conn, scope: &Scope, hash: &str) -> Result<(), Failure> {
        store::release(conn, scope, hash, self.clock.now()).await?;
        Ok(())
    }

    /// Opens content for reading.
    ///
    /// # Errors
    /// When there is none by this hash.
    pub async fn open(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        hash: &str,
    ) -> Result<BlobRead, Failure> {
        let found = store::find(conn, scope, hash).await?;
        let row =
            found.ok_or_else(|| Failure::internal("a row refers to content that is not there"))?;
        Ok(BlobRead::new(Arc::clone(&self.objects), self.path(&row.object_key), row))
    }

    /// Opens an object by what its row says, for whoever copies every row: `chunks` is the column's
    /// JSON.
    ///
    /// # Errors
    /// When `chunks` is not what a row has.
    pub fn open_stored(
        &self,
        object_key: &str,
        size_bytes: u64,
        compressed: bool,
        chunks: &str,
    ) -> Result<BlobRead, Failure> {
        let chunks = crate::db::Json(serde_json::from_str(chunks)?);
        let (hash, object_key) = (String::new(), object_key.to_owned());
        let row = store::BlobRow { hash, size_bytes, object_key, compressed, chunks };
        Ok(BlobRead::new(Arc::clone(&self.objects), self.path(&row.object_key), row))
    }

    /// Writes an object that another store had under this key.
    pub fn upload(&self, object_key: &str) -> Upload {
        Upload::new(self, object_key)
    }

    /// Removes content that nobody has referred to for a while, and what a killed process left of
    /// its uploads. Returns how many blobs went.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sweep(&self, db: &Db, scope: &Scope) -> Result<usize, Failure> {
        let gone = store::take_orphans(&mut db.conn().await?, scope, self.ago(GRACE)).await?;
        for key in &gone {
            self.remove(key).await;
        }
        if let Some(directory) = self.directory.clone() {
            let before = self.ago(ABANDONED);
            let work = move || remove_abandoned(&directory, before);
            compute(work).await?;
        }
        Ok(gone.len())
    }

    fn ago(&self, age: Duration) -> Time {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Time::from_micros(self.clock.now().micros().saturating_sub(age))
    }

    /// Removes an object that no row refers to.
    pub async fn remove(&self, key: &str) {
        if let Err(error) = self.objects.delete(&self.path(key)).await {
            tracing::warn!(%error, key, "an object could not be removed");
        }
    }

    fn path(&self, key: &str) -> object_store::path::Path {
        object_store::path::Path::from_iter(
            self.prefix
                .parts()
                .chain(key.split('/').map(|it| object_store::path::PathPart::from(it.to_owned()))),
        )
    }
}

/// Removes parts of uploads that began before an instant: files `ID#N`, whose ids have their time.
/// Whole objects are left alone even if no row refers to them, since it may be another database's.
fn remove_abandoned(directory: &Path, before: Time) {
    let entries = |path: &Path| fs_err::read_dir(path).into_iter().flatten().flatten();
    let files = entries(directory).flat_map(|it| entries(&it.path()));
    for file in files {
        let name = file.file_name();
        let Some((id, _)) = name.to_str().and_then(|it| it.split_once('#')) else { continue };
        let began = ulid::Ulid::from_string(id).ok().map(|it| it.timestamp_ms());
        let began = began.and_then(|it| i64::try_from(it).ok()?.checked_mul(1000));
        if began.is_some_and(|it| Time::from_micros(it) < before)
            && let Err(error) = fs_err::remove_file(file.path())
        {
            tracing::warn!(%error, "an abandoned upload could not be removed");
        }
    }
}

/// The failure behind an error of [`BlobRead::stream`].
pub fn failure_of(error: std::io::Error) -> Failure {
    error.downcast().unwrap_or_else(Failure::internal)
}

/// The clients' side of what an object store answers.
fn refused(error: object_store::Error) -> Failure {
    use std::error::Error as _;
    // A row says that it is there. Asking again does not bring it back.
    if matches!(error, object_store::Error::NotFound { .. }) {
        return Failure::internal(format!("content is missing from the store: {error}"));
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(it) = cause {
        match it.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::FileTooLarge,
            ) => {
                return Failure::new(
                    Kind::Unavailable,
                    "storage_full",
                    "the disk is full: nothing was stored; free space and try again",
                )
                .caused_by(error);
            }
            Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                return Failure::new(
                    Kind::Unavailable,
                    "storage_read_only",
                    "the data directory cannot be written: nothing was stored; ask the operator",
                )
                .caused_by(error);
            }
            _ => cause = it.source(),
        }
    }
    Failure::new(
        Kind::Unavailable,
        "storage_unreachable",
        "the store for content does not answer, try again in a moment",
    )
    .caused_by(error)
}
