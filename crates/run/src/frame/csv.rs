//! Frames as CSV files: what a model finds in its workspace, and what it leaves there.
//!
//! Written as Python's `csv.writer` does: lines end in `\r\n`, quotes only where needed, nothing for
//! null, `True` and `False`. Reading gives a column one type, inferred from all of its cells.

use std::collections::HashSet;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::python;
use super::{Cell, Frame};

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
        self.write_csv(&mut out).expect("memory takes every byte");
        out
    }

    fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        write_line(
            out,
            &self.columns,
            |column| column.is_empty(),
            |column, out| write_text(column, out),
        )?;
        self.write_csv_rows(out)
    }

    /// The rows alone, for whoever has written the header line already.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_csv_rows(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.data {
            write_line(out, row, |cell| cell.is_null() || *cell == "", write_cell)?;
        }
        Ok(())
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
        let mut record = csv::StringRecord::new();
        let mut reader = read(text);
        if !reader.read_record(&mut record)? {
            return Ok(Frame::default());
        }
        let columns: Vec<String> = record.iter().map(str::to_owned).collect();
        refuse_duplicates(&columns)?;
        // What a column holds is known only at the end, so the text is gone through twice: that
        // costs less than to keep its pieces.
        let mut kinds = CsvKinds::of(columns.len());
        let mut rows = 0;
        while reader.read_record(&mut record)? {
            if record.len() != columns.len() {
                let line = record.position().map_or(0, csv::Position::line);
                let (found, expected) = (record.len(), columns.len());
                return Err(FrameError::Ragged { line, found, expected });
            }
            kinds.learn(&record);
            rows += 1;
        }
        let mut reader = read(text);
        reader.read_record(&mut record)?;
        let mut data = Vec::with_capacity(rows);
        while reader.read_record(&mut record)? {
            data.push(kinds.read(&record));
        }
        Ok(Frame::new(columns, data))
    }
}

fn read(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes())
}

fn refuse_duplicates(columns: &[String]) -> Result<(), FrameError> {
    let mut seen = HashSet::new();
    match columns.iter().find(|column| !seen.insert(column.as_str())) {
        Some(name) => Err(FrameError::DuplicateColumn { name: name.clone() }),
        None => Ok(()),
    }
}

fn write_line<T, W: Write>(
    out: &mut W,
    cells: &[T],
    is_empty: impl Fn(&T) -> bool,
    write: impl Fn(&T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    match cells {
        // An empty line would be skipped by readers, and with it the row.
        [alone] if is_empty(alone) => out.write_all(b"\"\"")?,
        cells => {
            for (index, cell) in cells.iter().enumerate() {
                if index > 0 {
                    out.write_all(b",")?;
                }
                write(cell, out)?;
            }
        }
    }
    out.write_all(b"\r\n")
}

fn write_cell(cell: &Cell, out: &mut impl Write) -> io::Result<()> {
    match cell {
        Cell::Null => Ok(()),
        Cell::Bool(true) => out.write_all(b"True"),
        Cell::Bool(false) => out.write_all(b"False"),
        Cell::Number(number) => python::write_number(number, out),
        Cell::Text(text) => write_text(text.as_str(), out),
    }
}

fn write_text(text: &str, out: &mut impl Write) -> io::Result<()> {
    if !text.contains([',', '"', '\r', '\n']) {
        return out.write_all(text.as_bytes());
    }
    out.write_all(b"\"")?;
    let mut pieces = text.split('"');
    out.write_all(pieces.next().unwrap_or_default().as_bytes())?;
    for piece in pieces {
        out.write_all(b"\"\"")?;
        out.write_all(piece.as_bytes())?;
    }
    out.write_all(b"\"")
}

/// What the columns of a CSV file hold, which is known when all of its rows were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvKinds(Vec<Kind>);

impl CsvKinds {
    /// So many columns, of which nothing is known.
    pub fn of(columns: usize) -> Self {
        Self(vec![Kind::Nothing; columns])
    }

    /// Looks at a row.
    pub fn learn<S: AsRef<str>>(&mut self, row: impl IntoIterator<Item = S>) {
        for (kind, cell) in self.0.iter_mut().zip(row) {
            *kind = kind.and_of(cell.as_ref());
        }
    }

    /// Reads a row.
    pub fn read<S: AsRef<str>>(&self, row: impl IntoIterator<Item = S>) -> Vec<Cell> {
        self.0.iter().zip(row).map(|(kind, cell)| kind.read(cell.as_ref())).collect()
    }
}

/// What the cells of a column have in common so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    /// As [`Kind::and`], and looks at the text only where that can change anything.
    fn and_of(self, text: &str) -> Kind {
        if self == Kind::Text { self } else { self.and(Kind::of(text)) }
    }

    fn read(self, text: &str) -> Cell {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Cell::Null;
        }
        let read = match self {
            Kind::Nothing => Some(Cell::Null),
            Kind::Boolean => boolean(trimmed).map(Cell::Bool),
            Kind::Integer => integer(trimmed),
            // What is not finite becomes null.
            Kind::Float => trimmed.parse::<f64>().ok().map(Cell::from),
            Kind::Text => None,
        };
        read.unwrap_or_else(|| text.into())
    }
}

fn boolean(text: &str) -> Option<bool> {
    let is = |word| text.eq_ignore_ascii_case(word);
    if is("true") || is("yes") {
        return Some(true);
    }
    (is("false") || is("no")).then_some(false)
}

fn integer(text: &str) -> Option<Cell> {
    match text.parse::<i64>() {
        Ok(value) => Some(value.into()),
        Err(_) => text.parse::<u64>().ok().map(Cell::from),
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
