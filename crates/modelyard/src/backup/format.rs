//! What the file looks like.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use modelyard_kernel::Time;
use modelyard_kernel::db::{Dialect, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// The format that this program writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;
/// Names the format in a manifest.
pub(super) const KIND: &str = "modelyard-backup";
/// The entry that describes the others.
pub(super) const MANIFEST: &str = "manifest.json";

/// What is in a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) kind: String,
    pub(super) format: u32,
    pub(super) program: String,
    pub(super) created_at: String,
    /// For people: the rows are the same from both.
    pub(super) dialect: String,
    pub(super) schema_version: i64,
    /// In the order in which they are restored.
    pub(super) tables: Vec<TableEntry>,
    /// SHA-256 of each entry, in hexadecimal.
    pub(super) sha256: BTreeMap<String, String>,
    /// Keys of objects that are missing.
    pub(super) damaged: Vec<String>,
}

/// A table in a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TableEntry {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: u64,
}

/// A column, in terms that both databases know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnKind,
}

/// What is in a column. Times and JSON are text in a backup, as SQLite has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColumnKind {
    Text,
    Int,
    Real,
    Bool,
    /// In base 64.
    Bytes,
}

/// The entry of a table.
pub(super) fn table_entry(table: &str) -> String {
    format!("tables/{table}.ndjson")
}

/// The entry of an object.
pub(super) fn object_entry(key: &str) -> String {
    format!("blobs/{key}")
}

/// A value as it is written. `None` when the column holds something else than it declares.
pub(super) fn to_json(value: Value, kind: ColumnKind) -> Option<Json> {
    Some(match (kind, value) {
        (_, Value::Null) => Json::Null,
        (ColumnKind::Text, Value::Text(it)) => Json::String(it),
        (ColumnKind::Text, Value::Time(it)) => Json::String(it.to_string()),
        (ColumnKind::Int, Value::Int(it)) => it.into(),
        (ColumnKind::Bool, Value::Bool(it)) => it.into(),
        (ColumnKind::Bool, Value::Int(it)) => (it != 0).into(),
        (ColumnKind::Bytes, Value::Bytes(it)) => STANDARD.encode(it).into(),
        // JSON has no infinity.
        (ColumnKind::Real, Value::Real(it)) => match serde_json::Number::from_f64(it) {
            Some(it) => it.into(),
            None => it.to_string().into(),
        },
        _ => return None,
    })
}

/// A value for a column of a database. `None` when it is none.
pub(super) fn from_json(
    json: Json,
    kind: ColumnKind,
    is_time: bool,
    dialect: Dialect,
) -> Option<Value> {
    Some(match (kind, json) {
        (_, Json::Null) => Value::Null,
        (ColumnKind::Text, Json::String(it)) if is_time && dialect == Dialect::Postgres => {
            Value::Time(it.parse::<Time>().ok()?)
        }
        (ColumnKind::Text, Json::String(it)) => Value::Text(it),
        (ColumnKind::Int, it) => Value::Int(it.as_i64()?),
        (ColumnKind::Bool, Json::Bool(it)) => Value::Bool(it),
        (ColumnKind::Bytes, Json::String(it)) => Value::Bytes(STANDARD.decode(it).ok()?),
        (ColumnKind::Real, Json::String(it)) => Value::Real(it.parse().ok()?),
        (ColumnKind::Real, it) => Value::Real(it.as_f64()?),
        _ => return None,
    })
}

/// Passes bytes on and takes their hash.
#[derive(Debug)]
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// The hash in hexadecimal, and how many bytes passed.
    pub(super) fn finish(self) -> (String, u64) {
        let hash = self.hash.finalize();
        (hash.iter().map(|it| format!("{it:02x}")).collect(), self.bytes)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }
}
