//! Writing a backup.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use futures_util::StreamExt;
use modelyard_kernel::db::{Tx, Value};
use modelyard_kernel::{Blobs, Clock, Db, Failure, Kind};
use modelyard_schema::TABLES;
use serde_json::Map;
use tokio::runtime::Handle;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::format::{
    FORMAT, Hashing, KIND, MANIFEST, Manifest, TableEntry, object_entry, table_entry, to_json,
};
use super::table::Table;
use super::{BackupError, Summary};

type Result<T> = std::result::Result<T, BackupError>;
type Zip = ZipWriter<BufWriter<fs_err::File>>;

/// An object that a row refers to.
struct Object {
    key: String,
    size_bytes: u64,
    compressed: bool,
    chunks: String,
}

/// A file under a name of its own until it is whole.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            let _gone_already = fs_err::remove_file(&self.path);
        }
    }
}

/// Writes everything into `file`.
pub(super) fn write(
    handle: &Handle,
    db: &Db,
    blobs: &Blobs,
    clock: &Clock,
    file: &Path,
) -> Result<Summary> {
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let mut unfinished = Unfinished { path: name.into(), kept: false };
    let mut options = fs_err::OpenOptions::new();
    // Whoever can read it can read everything.
    let out = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished.path)?;

    let mut zip = ZipWriter::new(BufWriter::new(out));
    let summary = entries(handle, db, blobs, clock, &mut zip)?;
    let out = zip.finish()?.into_inner().map_err(|it| BackupError::File(it.into_error()))?;
    out.sync_all()?;
    // Unlike renaming, this refuses when somebody else made the file meanwhile.
    fs_err::hard_link(&unfinished.path, file).or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links.
        _ => fs_err::rename(&unfinished.path, file).inspect(|()| unfinished.kept = true),
    })?;
    Ok(summary)
}

fn entries(
    handle: &Handle,
    db: &Db,
    blobs: &Blobs,
    clock: &Clock,
    zip: &mut Zip,
) -> Result<Summary> {
    let migrations = handle.block_on(modelyard_schema::status(db))?;
    if migrations.iter().any(|it| it.applied_at.is_none()) {
        return Err(BackupError::Outdated);
    }
    let mut manifest = Manifest {
        kind: KIND.to_owned(),
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: clock.now().to_string(),
        dialect: format!("{:?}", db.dialect()).to_lowercase(),
        schema_version: migrations.iter().map(|it| it.version).max().unwrap_or(0),
        tables: Vec::new(),
        sha256: BTreeMap::new(),
        damaged: Vec::new(),
    };
    let mut summary = Summary::default();
    let mut objects = Vec::new();
    let mut snapshot = handle.block_on(db.snapshot())?;
    for name in TABLES {
        let entry = rows(handle, &mut snapshot, name, zip, &mut manifest, &mut objects)?;
        summary.rows += entry.rows;
        manifest.tables.push(entry);
    }
    // Content outlives its last reference for a while, so that there is time to copy it.
    drop(snapshot);
    for object in objects {
        match content(handle, blobs, &object, zip, &mut manifest)? {
            Some(bytes) => {
                summary.objects += 1;
                summary.object_bytes += bytes;
            }
            None => manifest.damaged.push(object.key),
        }
    }
    summary.damaged.clone_from(&manifest.damaged);
    zip.start_file(MANIFEST, SimpleFileOptions::default())?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from)?;
    zip.write_all(&text)?;
    Ok(summary)
}

/// Writes the rows of a table, and keeps what they say of objects.
fn rows(
    handle: &Handle,
    snapshot: &mut Tx,
    name: &str,
    zip: &mut Zip,
    manifest: &mut Manifest,
    objects: &mut Vec<Object>,
) -> Result<TableEntry> {
    let table = handle.block_on(Table::describe(snapshot, name))?;
    // What nobody refers to may be removed while we copy.
    let condition = if name == "blobs" { "refs > 0" } else { "1 = 1" };
    let options = SimpleFileOptions::default().large_file(true);
    zip.start_file(table_entry(name), options)?;
    let mut out = Hashing::new(zip);
    let mut after: Option<Vec<Value>> = None;
    let mut count = 0;
    loop {
        let page = handle.block_on(table.page(snapshot, after.as_deref(), condition))?;
        let Some(last) = page.last() else { break };
        after = Some(table.key_of(last));
        for row in page {
            if name == "blobs" {
                objects.push(object(&table, &row)?);
            }
            let mut line = Map::new();
            for (column, value) in table.columns.iter().zip(row) {
                let json =
                    to_json(value, column.kind).ok_or_else(|| unreadable(name, &column.name))?;
                line.insert(column.name.clone(), json);
            }
            serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
            count += 1;
        }
    }
    let (hash, _) = out.finish();
    manifest.sha256.insert(table_entry(name), hash);
    Ok(TableEntry { name: name.to_owned(), columns: table.columns, rows: count })
}

fn unreadable(table: &str, column: &str) -> BackupError {
    BackupError::Damaged(format!("`{table}.{column}` holds something else than it declares"))
}

fn object(table: &Table, row: &[Value]) -> Result<Object> {
    let get = |column: &str| table.place(column).and_then(|place| row.get(place));
    let text = |column: &str| match get(column) {
        Some(Value::Text(it)) => Ok(it.clone()),
        _ => Err(unreadable("blobs", column)),
    };
    let size_bytes = match get("size_bytes") {
        Some(Value::Int(it)) => u64::try_from(*it).unwrap_or(0),
        _ => return Err(unreadable("blobs", "size_bytes")),
    };
    let compressed = match get("compressed") {
        Some(Value::Bool(it)) => *it,
        Some(Value::Int(it)) => *it != 0,
        _ => return Err(unreadable("blobs", "compressed")),
    };
    Ok(Object { key: text("object_key")?, size_bytes, compressed, chunks: text("chunks")? })
}

/// Whether it is the object that is wrong, so that a backup has to do without it, and not the way to
/// it, which may be right the next time.
fn is_lost(failure: &Failure) -> bool {
    if failure.kind() != Kind::Unavailable {
        return true;
    }
    let causes =
        || std::iter::successors(failure.source(), |it: &&(dyn Error + 'static)| (*it).source());
    causes().any(|it| match it.downcast_ref() {
        Some(object_store::Error::NotFound { .. }) => true,
        // A directory's troubles come from the system. Without one, the file is too short.
        Some(object_store::Error::Generic { store: "LocalFileSystem", .. }) => {
            !causes().any(|it| it.is::<std::io::Error>())
        }
        _ => false,
    })
}

/// Copies an object, checked on the way; `None` when it is damaged or gone.
fn content(
    handle: &Handle,
    blobs: &Blobs,
    object: &Object,
    zip: &mut Zip,
    manifest: &mut Manifest,
) -> Result<Option<u64>> {
    let opened =
        blobs.open_stored(&object.key, object.size_bytes, object.compressed, &object.chunks)?;
    // What is compressed already would not shrink, and what is not did not.
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    zip.start_file(object_entry(&object.key), options)?;
    let mut out = Hashing::new(&mut *zip);
    let mut stream = std::pin::pin!(opened.stored());
    while let Some(bytes) = handle.block_on(stream.next()) {
        match bytes {
            Ok(bytes) => out.write_all(&bytes)?,
            Err(failure) if is_lost(&failure) => {
                tracing::error!(%failure, key = object.key, "an object cannot be backed up");
                zip.abort_file()?;
                return Ok(None);
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    let (hash, bytes) = out.finish();
    manifest.sha256.insert(object_entry(&object.key), hash);
    Ok(Some(bytes))
}
