//! Restoring a backup.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use modelyard_kernel::db::{Tx, query};
use modelyard_kernel::{Blobs, Db};
use modelyard_schema::TABLES;
use serde_json::{Map, Value as Json};
use tokio::runtime::Handle;
use zip::ZipArchive;

use super::format::{
    FORMAT, Hashing, KIND, MANIFEST, Manifest, TableEntry, from_json, object_entry, table_entry,
};
use super::table::Table;
use super::{BackupError, Restoring, Summary};

type Result<T> = std::result::Result<T, BackupError>;

/// The longest manifest, and the longest line of a table: far above what either is.
const MAX_TEXT: u64 = 1 << 30;
/// What lets somebody in who has a copy of what was shown once, children before parents.
const LOGINS: [&str; 3] = ["refresh_tokens", "sessions", "mailed_links"];
/// Bytes of an object that are copied at a time.
const COPY: usize = 1 << 20;

/// A backup that has been opened and is whole.
struct Backup {
    zip: ZipArchive<BufReader<fs_err::File>>,
    manifest: Manifest,
}

/// Restores `file`.
pub(super) fn restore(
    handle: &Handle,
    db: &Db,
    blobs: &Blobs,
    file: &Path,
    how: Restoring,
) -> Result<Summary> {
    let migrations = handle.block_on(modelyard_schema::status(db))?;
    if migrations.iter().any(|it| it.applied_at.is_none()) {
        return Err(BackupError::Outdated);
    }
    let known = migrations.iter().map(|it| it.version).max().unwrap_or(0);
    let mut backup = Backup::open(file, known)?;
    backup.verify()?;
    let present = handle.block_on(present(db))?;
    if let (Some(table), false) = (present.table, how.replace) {
        return Err(BackupError::NotEmpty(table));
    }

    let mut copied = Vec::new();
    let restored = backup
        .objects(handle, blobs, &present.objects, &mut copied)
        .and_then(|summary| backup.rows(handle, db, summary, how));
    // Whichever side is not referred to now has no reason to stay.
    let unused: Vec<String> = match &restored {
        Ok(_) => {
            let kept: HashSet<&str> = backup.object_keys().collect();
            present.objects.into_iter().filter(|it| !kept.contains(it.as_str())).collect()
        }
        Err(_) => copied,
    };
    for key in unused {
        handle.block_on(blobs.remove(&key));
    }
    restored
}

/// What is in the database before.
struct Present {
    /// A table with rows.
    table: Option<String>,
    objects: HashSet<String>,
}

async fn present(db: &Db) -> Result<Present> {
    let mut conn = db.conn().await?;
    let mut table = None;
    for name in TABLES {
        if Table::describe(&mut conn, name).await?.has_rows(&mut conn).await? {
            table = Some((*name).to_owned());
            break;
        }
    }
    let keys: Vec<(String,)> = query("SELECT object_key FROM blobs").fetch_all(&mut conn).await?;
    Ok(Present { table, objects: keys.into_iter().map(|it| it.0).collect() })
}

impl Backup {
    fn open(file: &Path, known: i64) -> Result<Self> {
        let damaged = |it: &str| BackupError::Damaged(it.to_owned());
        let mut zip = ZipArchive::new(BufReader::new(fs_err::File::open(file)?))?;
        let mut text = Vec::new();
        let entry = zip.by_name(MANIFEST).map_err(|_| damaged("it has no manifest"))?;
        entry.take(MAX_TEXT).read_to_end(&mut text)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|_| damaged("its manifest cannot be read"))?;
        if manifest.kind != KIND || manifest.format != FORMAT {
            return Err(damaged("it is in another format"));
        }
        if manifest.schema_version > known {
            return Err(BackupError::TooNew { found: manifest.schema_version, known });
        }
        Ok(Self { zip, manifest })
    }

    /// Reads everything once, so that nothing is changed when the file is not whole.
    fn verify(&mut self) -> Result<()> {
        for table in &self.manifest.tables {
            if !TABLES.contains(&table.name.as_str()) {
                return Err(BackupError::Damaged(format!("there is no table `{}`", table.name)));
            }
            if !self.manifest.sha256.contains_key(&table_entry(&table.name)) {
                return Err(BackupError::Damaged(format!("it has no `{}`", table.name)));
            }
        }
        for (name, expected) in &self.manifest.sha256 {
            let missing = |_| BackupError::Damaged(format!("`{name}` is missing"));
            let mut entry = Hashing::new(self.zip.by_name(name).map_err(missing)?);
            let damaged = |it| BackupError::Damaged(format!("`{name}`: {it}"));
            std::io::copy(&mut entry, &mut std::io::sink()).map_err(damaged)?;
            if entry.finish().0 != *expected {
                return Err(BackupError::Damaged(format!("`{name}` is not what was written")));
            }
        }
        Ok(())
    }

    fn object_keys(&self) -> impl Iterator<Item = &str> {
        let prefix = object_entry("");
        self.manifest.sha256.keys().filter_map(move |it| it.strip_prefix(&prefix))
    }

    /// Copies every object; those under `present` have what they should already.
    fn objects(
        &mut self,
        handle: &Handle,
        blobs: &Blobs,
        present: &HashSet<String>,
        copied: &mut Vec<String>,
    ) -> Result<Summary> {
        let mut summary = Summary { damaged: self.manifest.damaged.clone(), ..Summary::default() };
        let keys: Vec<String> = self.object_keys().map(ToOwned::to_owned).collect();
        for key in keys {
            let mut entry = self.zip.by_name(&object_entry(&key))?;
            summary.objects += 1;
            summary.object_bytes += entry.size();
            let mut upload = blobs.upload(&key);
            loop {
                let mut bytes = vec![0; COPY];
                let count = entry.read(&mut bytes)?;
                if count == 0 {
                    break;
                }
                bytes.truncate(count);
                handle.block_on(upload.write(Bytes::from(bytes)))?;
            }
            if !present.contains(&key) {
                copied.push(key.clone());
            }
            handle.block_on(upload.finish())?;
        }
        Ok(summary)
    }

    /// Replaces every row, all of them or none.
    fn rows(
        &mut self,
        handle: &Handle,
        db: &Db,
        mut summary: Summary,
        how: Restoring,
    ) -> Result<Summary> {
        let mut tx = handle.block_on(db.begin())?;
        // The audit lets nobody remove its entries who does not say so.
        let removal = "INSERT INTO audit_removals (tenant_id, seq)
             SELECT tenant_id, MAX(seq) FROM audit_entries GROUP BY tenant_id";
        handle.block_on(query(removal).execute(&mut tx))?;
        for table in TABLES.iter().rev().chain(&["audit_removals"]) {
            handle.block_on(query(format!("DELETE FROM {table}")).execute(&mut tx))?;
        }
        for entry in &self.manifest.tables {
            let table = handle.block_on(Table::describe(&mut tx, &entry.name))?;
            let file = self.zip.by_name(&table_entry(&entry.name))?;
            let count = insert(handle, &mut tx, &table, entry, BufReader::new(file))?;
            if count != entry.rows {
                return Err(BackupError::Damaged(format!("`{}` lacks rows", entry.name)));
            }
            summary.rows += count;
        }
        if !how.keep_sessions {
            for table in LOGINS {
                handle.block_on(query(format!("DELETE FROM {table}")).execute(&mut tx))?;
            }
        }
        handle.block_on(tx.commit())?;
        Ok(summary)
    }
}

fn insert(
    handle: &Handle,
    tx: &mut Tx,
    table: &Table,
    entry: &TableEntry,
    mut file: impl BufRead,
) -> Result<u64> {
    let dialect = tx.dialect();
    let mut times = Vec::with_capacity(entry.columns.len());
    for column in &entry.columns {
        let place = table.place(&column.name).filter(|it| table.columns[*it] == *column);
        let place = place.ok_or_else(|| {
            BackupError::Damaged(format!("there is no column `{}.{}`", table.name, column.name))
        })?;
        times.push(table.times[place]);
    }
    let names: Vec<&str> = entry.columns.iter().map(|it| it.name.as_str()).collect();
    let places: Vec<String> = (1..=names.len()).map(|it| format!("${it}")).collect();
    let sql =
        format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
    let mut count = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut file).take(MAX_TEXT).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(count);
        }
        let wrong = || BackupError::Damaged(format!("row {} of `{}`", count + 1, table.name));
        let mut row: Map<String, Json> = serde_json::from_slice(&line).map_err(|_| wrong())?;
        let mut statement = query(sql.clone());
        for (column, is_time) in entry.columns.iter().zip(&times) {
            let json = row.remove(&column.name).ok_or_else(wrong)?;
            let value = from_json(json, column.kind, *is_time, dialect).ok_or_else(wrong)?;
            statement = statement.bind(value);
        }
        handle.block_on(statement.execute(tx))?;
        count += 1;
    }
}
