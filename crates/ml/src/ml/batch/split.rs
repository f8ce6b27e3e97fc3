//! Cuts a file into its rows while its bytes come, in memory that does not grow with the file. No I/O
//! in this file.
//!
//! However the bytes are cut, the rows are the same: a test says so of any file and any cut.

use serde::{Deserialize, Serialize};

use super::json::JsonSplitter;

/// What the rows of a file are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With a header line.
    Csv,
    /// A JSON value on each line.
    Ndjson,
    /// A list of values, or a data frame.
    Json,
}

impl Format {
    /// The words of the option `format`.
    pub(super) const WORDS: [&str; 3] = ["csv", "ndjson", "json"];

    /// By the option, or by the type of the body.
    pub(super) fn of(word: &str) -> Option<Self> {
        let media = word.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Some(match media.as_str() {
            "csv" | "text/csv" | "application/csv" => Self::Csv,
            "ndjson" | "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                Self::Ndjson
            }
            "json" | "application/json" => Self::Json,
            _ => return None,
        })
    }
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The names of the columns.
    Columns(Vec<String>),
    /// A line of CSV.
    Fields(Fields),
    /// A JSON value, not looked at.
    Json(Vec<u8>),
    /// A row that is larger than any row may be.
    TooLong,
}

/// The fields of a line of CSV, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    /// As texts; `None` when they are not UTF-8.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        let text = std::str::from_utf8(&self.text).ok()?;
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, until)| text.get(from..*until)).collect()
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.ends.len()
    }
}

impl Record {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Record::Columns(_) | Record::TooLong => 0,
            Record::Fields(fields) => fields.bytes(),
            Record::Json(json) => json.len(),
        }
    }
}

/// A file that cannot be read any further, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// More columns than a data frame may have.
pub(super) const MOST_COLUMNS: usize = 10_000;

/// A file that is being cut.
#[derive(Debug)]
pub struct Splitter {
    /// The first bytes, until they may be told from a byte order mark.
    begin: Option<Vec<u8>>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Csv(Csv),
    Lines(Lines),
    Json(JsonSplitter),
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl Splitter {
    /// A file of which nothing has come yet; no row may have more than `most` bytes.
    pub fn new(format: Format, most: usize) -> Self {
        let kind = match format {
            Format::Csv => Kind::Csv(Csv::new(most)),
            Format::Ndjson => Kind::Lines(Lines { most, ..Lines::default() }),
            Format::Json => Kind::Json(JsonSplitter::new(most)),
        };
        Self { begin: Some(Vec::new()), kind }
    }

    /// Takes the next bytes, which should not be many: their rows are all in `out` afterwards.
    ///
    /// # Errors
    /// When nothing that comes could be read.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), Broken> {
        let Some(begin) = &mut self.begin else { return self.kind.push(bytes, out) };
        begin.extend_from_slice(bytes);
        if begin.len() < BYTE_ORDER_MARK.len() {
            return Ok(());
        }
        self.begin(out)
    }

    fn begin(&mut self, out: &mut Vec<Record>) -> Result<(), Broken> {
        let begin = self.begin.take().unwrap_or_default();
        self.kind.push(begin.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&begin), out)
    }

    /// There is no more.
    ///
    /// # Errors
    /// When there should be.
    pub fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), Broken> {
        self.begin(out)?;
        match &mut self.kind {
            Kind::Csv(it) => it.finish(out),
            Kind::Lines(it) => {
                it.end_line(out);
                Ok(())
            }
            Kind::Json(it) => it.finish(),
        }
    }
}

impl Kind {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), Broken> {
        match self {
            Kind::Csv(it) => it.push(bytes, out),
            Kind::Lines(it) => {
                it.push(bytes, out);
                Ok(())
            }
            Kind::Json(it) => it.push(bytes, out),
        }
    }
}

#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    most: usize,
    too_long: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Record>) {
        let mut pieces = bytes.split(|it| *it == b'\n');
        self.add(pieces.next().unwrap_or_default());
        for piece in pieces {
            self.end_line(out);
            self.add(piece);
        }
    }

    fn add(&mut self, piece: &[u8]) {
        if self.too_long || self.line.len() + piece.len() > self.most {
            self.too_long = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(piece);
        }
    }

    /// Empty lines are none.
    fn end_line(&mut self, out: &mut Vec<Record>) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            out.push(Record::TooLong);
        } else if !line.trim_ascii().is_empty() {
            out.push(Record::Json(line));
        }
    }
}

#[derive(Debug)]
struct Csv {
    reader: Box<csv_core::Reader>,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// How much of `text` and `ends` this row has filled.
    filled: usize,
    fields: usize,
    most: usize,
    too_long: bool,
    has_header: bool,
}

impl Csv {
    fn new(most: usize) -> Self {
        Self {
            reader: Box::new(csv_core::Reader::new()),
            text: vec![0; 256.min(most)],
            ends: vec![0; 16],
            filled: 0,
            fields: 0,
            most,
            too_long: false,
            has_header: false,
        }
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Record>) -> Result<(), Broken> {
        // No bytes would mean the end of the file.
        while !bytes.is_empty() {
            let (read, _) = self.read(bytes, out)?;
            bytes = bytes.get(read..).unwrap_or_default();
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), Broken> {
        while !self.read(&[], out)?.1 {}
        if self.has_header { Ok(()) } else { Err(Broken("the file has no header line".to_owned())) }
    }

    /// How many bytes were read, and whether the file has ended.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(usize, bool), Broken> {
        use csv_core::ReadRecordResult::{End, InputEmpty, OutputEndsFull, OutputFull, Record};
        let text = self.text.get_mut(self.filled..).unwrap_or_default();
        let ends = self.ends.get_mut(self.fields..).unwrap_or_default();
        let (result, read, wrote, ended) = self.reader.read_record(bytes, text, ends);
        self.filled += wrote;
        self.fields += ended;
        match result {
            InputEmpty => {}
            OutputFull if self.text.len() >= self.most => {
                self.too_long = true;
                self.filled = 0;
            }
            OutputFull => self.text.resize((self.text.len() * 2).min(self.most), 0),
            OutputEndsFull if self.ends.len() > MOST_COLUMNS => {
                self.too_long = true;
                self.fields = 0;
            }
            OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            Record => self.end_row(out)?,
            End => return Ok((read, true)),
        }
        Ok((read, false))
    }

    fn end_row(&mut self, out: &mut Vec<Record>) -> Result<(), Broken> {
        let (filled, fields) = (std::mem::take(&mut self.filled), std::mem::take(&mut self.fields));
        let is_header = !std::mem::replace(&mut self.has_header, true);
        if std::mem::take(&mut self.too_long) {
            if is_header {
                return Err(Broken("the header line is too long".to_owned()));
            }
            out.push(Record::TooLong);
            return Ok(());
        }
        let text = self.text.get(..filled).unwrap_or_default().to_vec();
        let fields = Fields { text, ends: self.ends.get(..fields).unwrap_or_default().to_vec() };
        if is_header {
            let names = fields.texts();
            let names = names.ok_or_else(|| Broken("the header line is not UTF-8".to_owned()))?;
            out.push(Record::Columns(names.into_iter().map(str::to_owned).collect()));
        } else {
            out.push(Record::Fields(fields));
        }
        Ok(())
    }
}
