//! Tables as they travel between a client, the server and a model: columns, rows, and optionally
//! what the columns hold.
//!
//! On the wire a frame is `{"columns": […], "data": [[…], …], "schema"?: {"fields": […]}}`; in a
//! model's workspace it is a CSV file. A cell is text, a number, a boolean or null.

mod cell;
mod csv;
mod direct;
mod infer;
#[cfg(feature = "parquet")]
mod parquet;
mod python;
mod read;

use std::collections::{HashMap, HashSet};
use std::io;

use serde::{Deserialize, Serialize};

pub use cell::{Cell, NotACell, Text};
pub use csv::{CsvKinds, FrameError};
pub use direct::Frames;
pub use infer::ColumnTypes;
#[cfg(feature = "parquet")]
pub use parquet::ParquetWriter;
pub use python::write_json as write_python_json;

/// A table. What comes from a client goes through [`Frame::read`], which promises that every row
/// is as long as `columns`, that no column is there twice, and that `schema` names only columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(description = "A table. Every row is as long as `columns`, and no column is there twice.",
    example = json!({"columns": ["time_period", "location", "disease_cases"],
        "data": [["2025-01", "north", 12], ["2025-02", "north", 9]]}))]
pub struct Frame {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with one cell for each column.
    #[schema(schema_with = rows)]
    pub data: Vec<Vec<Cell>>,
    /// What the columns hold, when somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<FrameSchema>,
}

/// Rows of cells.
fn rows() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let types = vec![Type::String, Type::Number, Type::Boolean, Type::Null];
    let cell = ObjectBuilder::new().schema_type(SchemaType::Array(types));
    let row = ArrayBuilder::new().items(cell);
    ArrayBuilder::new()
        .items(row)
        .description(Some("The rows, each with one cell for each column."))
        .build()
}

/// What the columns of a frame hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FrameSchema {
    pub fields: Vec<FrameField>,
}

/// What one column holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FrameField {
    /// The column.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// The column's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The type of a column; null is a value of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    String,
    Integer,
    Number,
    Boolean,
    Any,
}

impl FieldType {
    /// All types, in the order in which messages name them.
    pub const ALL: [FieldType; 5] = [
        FieldType::String,
        FieldType::Integer,
        FieldType::Number,
        FieldType::Boolean,
        FieldType::Any,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::String => "string",
            FieldType::Integer => "integer",
            FieldType::Number => "number",
            FieldType::Boolean => "boolean",
            FieldType::Any => "any",
        }
    }
}

impl Frame {
    /// A frame without a schema.
    pub fn new(columns: Vec<String>, data: Vec<Vec<Cell>>) -> Self {
        Frame { columns, data, schema: None }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.data.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// How many periods ahead this future frame asks for: the largest number of distinct
    /// `time_period`s that a `location` has. `None` when the frame does not say.
    pub fn horizon(&self) -> Option<usize> {
        let period = self.column("time_period")?;
        let location = self.column("location");
        let mut periods: HashMap<Option<&Cell>, HashSet<&Cell>> = HashMap::new();
        for row in &self.data {
            let place = location.and_then(|location| row.get(location));
            periods.entry(place).or_default().extend(row.get(period));
        }
        periods.values().map(HashSet::len).max()
    }

    /// Writes the rows as a JSON list of objects, `[{"a": 1}, {"a": 2}]`, the way Python prints it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_records(&self, out: impl io::Write) -> io::Result<()> {
        write_records(&self.columns, &self.data, out)
    }

    /// Writes the rows as objects, one a line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_ndjson(&self, out: &mut impl io::Write) -> io::Result<()> {
        for row in &self.data {
            serde_json::to_writer(&mut *out, &Record { columns: &self.columns, row })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// As [`Frame::write_records`], for a table with other cells.
///
/// # Errors
/// Those of `out`.
pub fn write_records<C: Serialize>(
    columns: &[String],
    rows: &[Vec<C>],
    out: impl io::Write,
) -> io::Result<()> {
    write_python_json(&Records { columns, rows }, out)
}

/// The rows as objects, made one at a time.
struct Records<'a, C> {
    columns: &'a [String],
    rows: &'a [Vec<C>],
}

impl<C: Serialize> Serialize for Records<'_, C> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| Record { columns: self.columns, row }))
    }
}

struct Record<'a, C> {
    columns: &'a [String],
    row: &'a [C],
}

impl<C: Serialize> Serialize for Record<'_, C> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().zip(self.row))
    }
}

#[cfg(test)]
mod tests;
