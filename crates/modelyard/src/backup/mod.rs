//! Backups: the whole database and all content in one file, which either kind of database can be
//! restored from.
//!
//! The file is a zip with
//!
//! - `tables/{table}.ndjson`: every row as a JSON object, all of them from one moment;
//! - `blobs/{object_key}`: every object as it is stored;
//! - `manifest.json`: the format, the version of the schema, the columns and how many rows there
//!   are, and the SHA-256 of each of the others.
//!
//! The service may be running while a backup is written. Content that nobody refers to any more is
//! left out.

mod format;
mod read;
#[cfg(test)]
mod strangers;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use modelyard_kernel::{Blobs, Clock, Db, Failure, Time, background, db};
use modelyard_schema::SchemaError;
use tokio::runtime::Handle;
use zip::result::ZipError;

/// What was written or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of all tables.
    pub rows: u64,
    /// Objects with content.
    pub objects: u64,
    /// Bytes of those objects, as they are stored.
    pub object_bytes: u64,
    /// Keys of objects that were damaged or gone when the backup was made, so that it lacks them.
    pub damaged: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, objects, object_bytes, damaged } = self;
        write!(f, "{rows} rows, {objects} objects of {object_bytes} bytes together")?;
        if !damaged.is_empty() {
            let count = damaged.len();
            write!(f, "; {count} objects are damaged or gone and are not in the backup")?;
        }
        Ok(())
    }
}

/// How a backup is restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restoring {
    /// Whatever is there goes first.
    pub replace: bool,
    /// Whoever was logged in stays so, and links that were mailed go on leading somewhere. Otherwise they end:
    /// among them may be some that were ended since.
    pub keep_sessions: bool,
}

/// A backup cannot be written or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is there already.
    #[error("{} exists; choose another name", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// The database refuses.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The schema is not what it should be.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store for content refuses.
    #[error(transparent)]
    Content(#[from] Failure),
    /// The database has migrations to come.
    #[error("the database is not up to date; run `modelyard db migrate` first")]
    Outdated,
    /// The file is no backup, or not whole.
    #[error("this is no backup, or it is damaged: {0}")]
    Damaged(String),
    /// The backup was written by a later program.
    #[error(
        "the backup is of schema version {found}, this program knows {known}: use a newer program"
    )]
    TooNew {
        /// The backup's.
        found: i64,
        /// The last that this program knows.
        known: i64,
    },
    /// There are rows already.
    #[error(
        "the database is not empty: `{0}` has rows; restore into an empty one, or ask to replace them"
    )]
    NotEmpty(String),
}

impl From<ZipError> for BackupError {
    fn from(it: ZipError) -> Self {
        match it {
            ZipError::Io(it) => BackupError::File(it),
            other => BackupError::Damaged(other.to_string()),
        }
    }
}

/// Writes everything into a new file.
///
/// # Errors
/// When the file exists or cannot be written, or the database or the store for content does not
/// answer; no file is left behind then.
pub async fn backup(
    db: &Db,
    blobs: &Blobs,
    clock: &Clock,
    file: &Path,
) -> Result<Summary, BackupError> {
    let (db, blobs, clock, file) = (db.clone(), blobs.clone(), clock.clone(), file.to_owned());
    on_a_thread(move |handle| write::write(&handle, &db, &blobs, &clock, &file)).await
}

/// Restores a backup into a migrated database without rows, unless `how` says otherwise. Nobody may use the database meanwhile.
///
/// # Errors
/// When the file is no whole backup, the database has rows, or one of both stores refuses; the
/// database is as it was then.
pub async fn restore(
    db: &Db,
    blobs: &Blobs,
    file: &Path,
    how: Restoring,
) -> Result<Summary, BackupError> {
    let (db, blobs, file) = (db.clone(), blobs.clone(), file.to_owned());
    on_a_thread(move |handle| read::restore(&handle, &db, &blobs, &file, how)).await
}

/// How many keys of a database may be used: among those of a backup may be some that were taken back since.
///
/// # Errors
/// When the database refuses.
pub async fn valid_keys(db: &Db, now: Time) -> Result<i64, BackupError> {
    let sql = "SELECT COUNT(*) FROM api_keys
         WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)";
    let (count,) = db::query(sql).bind(now).fetch_one(&mut db.conn().await?).await?;
    Ok(count)
}

/// Zips are read and written on a thread that may wait, and the rest from there.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(Handle) -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let handle = Handle::current();
    let done = background::on_a_thread(move || work(handle)).await;
    done.map_err(|it| BackupError::File(io::Error::other(it)))?
}
