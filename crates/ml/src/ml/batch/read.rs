//! A file from its bytes to what is done with it: a first look while it comes, and later its chunks.
//! No I/O in this file.

use std::vec;

use modelyard_run::frame::Cell;

use super::chunk::{Chunk, Chunker, Content, Failures, Sizes};
use super::model::Shape;
use super::split::{Broken, Format, Record, Splitter};
use super::table::{Layout, Places, Survey, no_column};

/// The bytes that are cut at a time, so that their rows are never many.
pub(super) const PIECE: usize = 64 << 10;

/// A first look at a file.
#[derive(Debug)]
pub struct Look {
    splitter: Splitter,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Table(Box<Survey>),
    Items(u64),
}

impl Look {
    /// A file of rows, in groups or not.
    pub fn at_table(format: Format, group_by: Option<String>) -> Self {
        let splitter = Splitter::new(format, Shape::most_bytes(true));
        Self { splitter, parts: Parts::Table(Box::new(Survey::new(format, group_by))) }
    }

    /// A file of requests.
    pub fn at_items(format: Format) -> Self {
        let splitter = Splitter::new(format, Shape::most_bytes(false));
        Self { splitter, parts: Parts::Items(0) }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut records = Vec::new();
        for piece in bytes.chunks(PIECE) {
            self.splitter.push(piece, &mut records)?;
            self.parts.look(&mut records)?;
        }
        Ok(())
    }

    /// What the file is like.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn finish(mut self) -> Result<Shape, Broken> {
        let mut records = Vec::new();
        self.splitter.finish(&mut records)?;
        self.parts.look(&mut records)?;
        match self.parts {
            Parts::Table(survey) => Ok(Shape::Table(survey.finish()?)),
            Parts::Items(0) => Err(Broken("the file has nothing in it".to_owned())),
            Parts::Items(items) => Ok(Shape::Items(items)),
        }
    }
}

impl Parts {
    fn look(&mut self, records: &mut Vec<Record>) -> Result<(), Broken> {
        for record in records.drain(..) {
            match self {
                Self::Table(survey) => survey.look(&record)?,
                Self::Items(_) if matches!(record, Record::Columns(_)) => {
                    return Err(Broken(
                        "a data frame is one table: say by `group_by` what its trainings are"
                            .to_owned(),
                    ));
                }
                Self::Items(items) => *items += 1,
            }
        }
        Ok(())
    }
}

/// A file that is read in chunks, one at a time: a piece of it may be many.
#[derive(Debug)]
pub struct Reader {
    splitter: Splitter,
    /// Of the last piece, and not in a chunk yet.
    records: vec::IntoIter<Record>,
    /// How many rows are in the chunks that were given, or in the one that is made.
    pub(super) rows: u64,
    into: Into,
    ended: bool,
}

#[derive(Debug)]
enum Into {
    Table { layout: Layout, places: Places, chunker: Box<Chunker> },
    Items(Failures),
}

impl Reader {
    /// A file of such a shape.
    ///
    /// # Errors
    /// When it has no column to group by.
    pub fn new(
        format: Format,
        shape: Shape,
        group_by: Option<&str>,
        sizes: Sizes,
    ) -> Result<Self, Broken> {
        let is_table = matches!(shape, Shape::Table(_));
        let splitter = Splitter::new(format, Shape::most_bytes(is_table));
        let into = match shape {
            Shape::Items(_) => Into::Items(Failures::default()),
            Shape::Table(layout) => {
                let group_by = match group_by {
                    Some(name) => {
                        let place = layout.column(name).ok_or_else(|| no_column(name))?;
                        Some((place, name.to_owned()))
                    }
                    None => None,
                };
                let chunker = Box::new(Chunker::new(sizes, group_by));
                Into::Table { places: layout.places(), layout, chunker }
            }
        };
        Ok(Self { splitter, records: Vec::new().into_iter(), rows: 0, into, ended: false })
    }

    /// Takes the next bytes, at most [`PIECE`] of them. Before, [`Reader::next_chunk`] has given all
    /// chunks of those before.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Broken> {
        let mut records = self.records.by_ref().collect();
        self.splitter.push(piece, &mut records)?;
        self.records = records.into_iter();
        Ok(())
    }

    /// There are no more bytes.
    ///
    /// # Errors
    /// When there should be.
    pub fn finish(&mut self) -> Result<(), Broken> {
        let mut records = self.records.by_ref().collect();
        self.splitter.finish(&mut records)?;
        (self.records, self.ended) = (records.into_iter(), true);
        Ok(())
    }

    /// The next chunk that is complete.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        while let Some(record) = self.records.next() {
            if let Some(chunk) = self.take(record) {
                return Some(chunk);
            }
        }
        match &mut self.into {
            Into::Table { chunker, .. } if self.ended => chunker.finish(),
            _ => None,
        }
    }

    /// Rows of what was read so far that could not be used.
    pub fn failures(&self) -> &Failures {
        match &self.into {
            Into::Table { chunker, .. } => &chunker.failures,
            Into::Items(failures) => failures,
        }
    }

    /// Adds the next record, and gives the chunk that is complete by it.
    fn take(&mut self, record: Record) -> Option<Chunk> {
        if matches!(record, Record::Columns(_)) {
            return None;
        }
        self.rows += 1;
        let row = self.rows;
        match &mut self.into {
            Into::Table { layout, places, chunker } => {
                let bytes = record.bytes() + layout.columns.len() * size_of::<Cell>();
                chunker.push(row, bytes, layout.read(places, &record))
            }
            Into::Items(failures) => {
                let (content, unusable) = match record {
                    Record::Json(json) => (json, 0),
                    _ => {
                        failures.add(row, row, "the item is too long".to_owned());
                        (Vec::new(), 1)
                    }
                };
                let (content, number) = (Content::Item(content), row);
                let (first_row, last_row) = (row, row);
                Some(Chunk { number, first_row, last_row, content, unusable })
            }
        }
    }
}
