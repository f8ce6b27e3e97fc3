//! Frames as CSV files: what a model finds in its workspace, and what it leaves there.
//!
//! Written as Python's `csv.writer` does: lines end in `\r\n`, quotes only where needed, nothing for
//! null, `True` and `False`. Reading gives a column one type, inferred from all of its cells.

use std::collections::HashSet;

use serde_json::{Number, Value};

use super::Frame;
use super::python;

/// Why a text is not a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("the file is not UTF-8 text, see byte {at}")]
    NotText { at: usize },
    #[error("line {line} has {found} cells, but there are {expected} columns")]
    Ragged { line: u64, found: usize, expected: usize },
    #[error("the column `{name}` is there twice")]
    DuplicateColumn { name: String },
    #[error("the file cannot be read as CSV")]
    Syntax(#[from] csv::Error),
}

impl Frame {
    /// The frame as a CSV file with a header line.
    pub fn to_csv(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_line(&mut out, self.columns.iter().map(|column| write_text(column)));
        for row in &self.data {
            write_line(&mut out, row.iter().map(write_cell));
        }
        out
    }

    /// Reads a CSV file with a header line. A file without any line is a frame without columns.
    ///
    /// Empty cells are null. A column of whole numbers stays one, with other numbers among them it
    /// becomes one of floats; `true`, `false`, `yes` and `no` make booleans. Everything else is text,
    /// as are numbers that would lose something: codes like `007`, more digits than fit.
    /// `nan` and infinities count as numbers and become null, for JSON has none.
    ///
    /// # Errors
    /// When it is not UTF-8, a row is longer or shorter than the header, or a column is there twice.
    pub fn from_csv(bytes: &[u8]) -> Result<Frame, FrameError> {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let text = std::str::from_utf8(bytes)
            .map_err(|error| FrameError::NotText { at: error.valid_up_to() })?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let Some(header) = records.next() else { return Ok(Frame::default()) };
        let columns: Vec<String> = header?.iter().map(str::to_owned).collect();
        refuse_duplicates(&columns)?;
        let mut rows = Vec::new();
        for record in records {
            let record = record?;
            if record.len() != columns.len() {
                let line = record.position().map_or(0, csv::Position::line);
                let (found, expected) = (record.len(), columns.len());
                return Err(FrameError::Ragged { line, found, expected });
            }
            rows.push(record);
        }
        Ok(Frame::new(columns, convert(&rows)))
    }
}

fn refuse_duplicates(columns: &[String]) -> Result<(), FrameError> {
    let mut seen = HashSet::new();
    match columns.iter().find(|column| !seen.insert(column.as_str())) {
        Some(name) => Err(FrameError::DuplicateColumn { name: name.clone() }),
        None => Ok(()),
    }
}

fn write_line(out: &mut Vec<u8>, cells: impl ExactSizeIterator<Item = String>) {
    let alone = cells.len() == 1;
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // An empty line would be skipped by readers, and with it the row.
        let cell = if alone && cell.is_empty() { "\"\"" } else { &cell };
        out.extend_from_slice(cell.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_cell(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => python::number(number),
        Value::String(text) => write_text(text),
        // Only a frame that was made by hand has such cells.
        Value::Array(_) | Value::Object(_) => write_text(&cell.to_string()),
    }
}

fn write_text(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// What the cells of a column have in common so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Boolean,
    Integer,
    Float,
    Text,
}

impl Kind {
    fn of(text: &str) -> Kind {
        let text = text.trim();
        if text.is_empty() {
            Kind::Nothing
        } else if boolean(text).is_some() {
            Kind::Boolean
        } else if loses_digits(text) {
            Kind::Text
        } else if integer(text).is_some() {
            Kind::Integer
        } else if is_integer_like(text) {
            Kind::Text
        } else if text.parse::<f64>().is_ok() {
            Kind::Float
        } else {
            Kind::Text
        }
    }

    fn and(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Nothing, kind) | (kind, Kind::Nothing) => kind,
            (a, b) if a == b => a,
            (Kind::Integer, Kind::Float) | (Kind::Float, Kind::Integer) => Kind::Float,
            _ => Kind::Text,
        }
    }

    fn read(self, text: &str) -> Value {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Value::Null;
        }
        let read = match self {
            Kind::Nothing => Some(Value::Null),
            Kind::Boolean => boolean(trimmed).map(Value::Bool),
            Kind::Integer => integer(trimmed).map(Value::Number),
            // `Value::from` makes null of what is not finite.
            Kind::Float => trimmed.parse::<f64>().ok().map(Value::from),
            Kind::Text => None,
        };
        read.unwrap_or_else(|| Value::String(text.to_owned()))
    }
}

fn convert(rows: &[csv::StringRecord]) -> Vec<Vec<Value>> {
    let mut kinds = vec![Kind::Nothing; rows.first().map_or(0, csv::StringRecord::len)];
    for row in rows {
        for (kind, cell) in kinds.iter_mut().zip(row) {
            if *kind != Kind::Text {
                *kind = kind.and(Kind::of(cell));
            }
        }
    }
    rows.iter()
        .map(|row| kinds.iter().zip(row).map(|(kind, cell)| kind.read(cell)).collect())
        .collect()
}

fn boolean(text: &str) -> Option<bool> {
    let is = |word| text.eq_ignore_ascii_case(word);
    if is("true") || is("yes") {
        return Some(true);
    }
    (is("false") || is("no")).then_some(false)
}

fn integer(text: &str) -> Option<Number> {
    match text.parse::<i64>() {
        Ok(value) => Some(value.into()),
        Err(_) => text.parse::<u64>().ok().map(Number::from),
    }
}

fn is_integer_like(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Leading zeros belong to codes, which numbers would shorten.
fn loses_digits(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text).as_bytes();
    matches!(digits, [b'0', b'0'..=b'9', ..])
}
