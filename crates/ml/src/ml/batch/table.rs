//! From the pieces of a file to rows of cells. A file is looked at twice: while it comes, to find out
//! what its columns are and how many rows there are ([`Survey`]), and in the job, to read the rows
//! ([`Layout::read`]). So a row means the same wherever the file is cut into chunks. No I/O in this file.

use std::collections::{HashMap, HashSet};
use std::fmt;

use modelyard_kernel::form::{long_integers, quote, shorten};
use modelyard_run::frame::{Cell, CsvKinds};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::model::{MOST_CELLS, MOST_NAME_BYTES};
use super::split::{Broken, Fields, Format, MOST_COLUMNS, Record};

/// What a file of rows is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// What the columns of a CSV file hold.
    kinds: Option<CsvKinds>,
    /// Whether the rows are lists of cells, as in a data frame, and not objects.
    in_frame: bool,
    /// How many rows there are, with those that cannot be read.
    pub rows: u64,
    /// How often the group changes, when there are groups.
    pub groups: u64,
}

/// A first look at a file of rows.
#[derive(Debug)]
pub struct Survey {
    format: Format,
    layout: Layout,
    /// Where the columns are in `layout`.
    places: Places,
    /// Bytes of the names of all columns.
    name_bytes: usize,
    group_by: Option<String>,
    group: Option<String>,
}

/// Columns by their names.
#[derive(Debug, Default)]
pub struct Places(HashMap<String, usize>);

impl Survey {
    /// A file of which nothing has come yet.
    pub fn new(format: Format, group_by: Option<String>) -> Self {
        let layout =
            Layout { columns: Vec::new(), kinds: None, in_frame: false, rows: 0, groups: 0 };
        Self { format, layout, places: Places::default(), name_bytes: 0, group_by, group: None }
    }

    /// Looks at the next piece.
    ///
    /// # Errors
    /// When the columns are none, or there is too much of the table.
    pub fn look(&mut self, record: &Record) -> Result<(), Broken> {
        match record {
            Record::Columns(columns) => return self.begin(columns),
            Record::TooLong => {}
            Record::Fields(fields) => {
                if let Some(texts) = fields.texts()
                    && texts.len() == self.layout.columns.len()
                {
                    let place = self.group_by.as_ref().and_then(|it| self.places.0.get(it));
                    let group = place.and_then(|it| texts.get(*it)).map(|it| (*it).to_owned());
                    if let Some(kinds) = &mut self.layout.kinds {
                        kinds.learn(texts);
                    }
                    self.note_group(group);
                }
            }
            Record::Json(json) => self.look_at_json(json)?,
        }
        self.layout.rows += 1;
        if self.layout.rows.saturating_mul(self.layout.columns.len() as u64) > MOST_CELLS {
            return Err(Broken(format!(
                "a table has at most {MOST_CELLS} cells, its rows times its columns, and this one \
                 has more"
            )));
        }
        Ok(())
    }

    /// What the file is like, now that all of it was seen.
    ///
    /// # Errors
    /// When there is nothing in it, or no column to group by.
    pub fn finish(self) -> Result<Layout, Broken> {
        if self.layout.rows == 0 {
            return Err(Broken("the file has no rows".to_owned()));
        }
        if self.layout.columns.is_empty() {
            return Err(Broken("no row of the file can be read".to_owned()));
        }
        match self.group_by.filter(|it| !self.places.0.contains_key(it)) {
            Some(name) => Err(no_column(&name)),
            None => Ok(self.layout),
        }
    }

    fn begin(&mut self, columns: &[String]) -> Result<(), Broken> {
        let layout = &mut self.layout;
        layout.columns = columns.to_vec();
        layout.kinds = (self.format == Format::Csv).then(|| CsvKinds::of(columns.len()));
        layout.in_frame = self.format == Format::Json;
        if columns.is_empty() {
            return Err(Broken("there are no columns".to_owned()));
        }
        self.name_bytes = columns.iter().map(String::len).sum();
        self.check_names()?;
        self.places = Places::of(columns);
        if self.places.0.len() == columns.len() {
            return Ok(());
        }
        let mut seen = HashSet::new();
        let twice = columns.iter().find(|it| !seen.insert(it.as_str()));
        let twice = twice.map(|it| quote(shorten(it))).unwrap_or_default();
        Err(Broken(format!("column {twice} is there twice")))
    }

    fn look_at_json(&mut self, json: &[u8]) -> Result<(), Broken> {
        let place = self.group_by.as_ref().and_then(|it| self.places.0.get(it)).copied();
        if self.layout.in_frame {
            if self.group_by.is_some()
                && let Ok(row) = self.layout.read_list(json)
            {
                self.note_group(place.and_then(|it| row.get(it)).map(Cell::to_string));
            }
            return Ok(());
        }
        // What cannot be read has no columns either.
        let Ok(read) = read_object(json, &self.places) else { return Ok(()) };
        let group = match &self.group_by {
            Some(name) => read.cells(&self.places, name),
            None => None,
        };
        self.note_group(group);
        for (name, _) in read.others {
            self.name_bytes += name.len();
            self.places.0.insert(name.clone(), self.layout.columns.len());
            self.layout.columns.push(name);
        }
        self.check_names()?;
        if self.layout.columns.len() > MOST_COLUMNS {
            return Err(Broken(format!("there are more than {MOST_COLUMNS} columns")));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Broken> {
        if self.name_bytes <= MOST_NAME_BYTES {
            return Ok(());
        }
        Err(Broken(format!("the names of the columns have more than {MOST_NAME_BYTES} bytes")))
    }

    fn note_group(&mut self, group: Option<String>) {
        if self.layout.groups == 0 || self.group != group {
            self.layout.groups += 1;
            self.group = group;
        }
    }
}

pub(super) fn no_column(name: &str) -> Broken {
    Broken(format!("there is no column {} to group by", quote(shorten(name))))
}

impl Places {
    fn of(columns: &[String]) -> Self {
        Self(columns.iter().cloned().zip(0..).collect())
    }
}

impl Layout {
    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|it| it == name)
    }

    /// For [`Layout::read`].
    pub fn places(&self) -> Places {
        Places::of(&self.columns)
    }

    /// A row with a cell for each of the columns, or what is wrong with it.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(&self, places: &Places, record: &Record) -> Result<Vec<Cell>, String> {
        match record {
            Record::Columns(_) => Err("the columns are there twice".to_owned()),
            Record::TooLong => Err("the row is too long; perhaps a quote is open".to_owned()),
            Record::Fields(fields) => self.read_fields(fields),
            Record::Json(json) if self.in_frame => self.read_list(json),
            Record::Json(json) => {
                let read = read_object(json, places)?;
                Ok(read.into_row(self.columns.len()))
            }
        }
    }

    fn read_fields(&self, fields: &Fields) -> Result<Vec<Cell>, String> {
        let texts = fields.texts().ok_or("the row is not UTF-8")?;
        self.check_width(texts.len())?;
        Ok(self.kinds.as_ref().map(|it| it.read(texts)).unwrap_or_default())
    }

    fn read_list(&self, json: &[u8]) -> Result<Vec<Cell>, String> {
        refuse_long_integers(json)?;
        let row: Vec<Cell> = serde_json::from_slice(json).map_err(|it| sentence(&it))?;
        self.check_width(row.len())?;
        Ok(row)
    }

    fn check_width(&self, cells: usize) -> Result<(), String> {
        let columns = self.columns.len();
        if cells == columns {
            return Ok(());
        }
        Err(format!("the row has {cells} cells, but there are {columns} columns"))
    }
}

/// An object of cells: those of known columns by their places, and the others by their names.
#[derive(Debug, Default)]
struct Object {
    known: Vec<(usize, Cell)>,
    others: Vec<(String, Cell)>,
}

impl Object {
    fn cells(&self, places: &Places, name: &str) -> Option<String> {
        let place = places.0.get(name);
        let known = self.known.iter().find(|it| place == Some(&it.0)).map(|it| &it.1);
        let others = || self.others.iter().find(|it| it.0 == name).map(|it| &it.1);
        known.or_else(others).map(Cell::to_string)
    }

    fn into_row(self, columns: usize) -> Vec<Cell> {
        let mut row = vec![Cell::Null; columns];
        for (place, cell) in self.known {
            if let Some(it) = row.get_mut(place) {
                *it = cell;
            }
        }
        row
    }
}

fn read_object(json: &[u8], places: &Places) -> Result<Object, String> {
    refuse_long_integers(json)?;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Cells(places).deserialize(&mut reader).and_then(|it| reader.end().map(|()| it));
    let Object { mut known, others } = read.map_err(|it| sentence(&it))?;
    known.sort_by_key(|it| it.0);
    if known.array_windows().any(|[one, next]| one.0 == next.0) {
        return Err("a key is there twice".to_owned());
    }
    let mut seen = HashSet::new();
    if !others.iter().all(|it| seen.insert(it.0.as_str())) {
        return Err("a key is there twice".to_owned());
    }
    Ok(Object { known, others })
}

fn refuse_long_integers(json: &[u8]) -> Result<(), String> {
    if long_integers(json).is_empty() {
        return Ok(());
    }
    Err("a whole number is too long for 64 bits".to_owned())
}

/// Without the place, which is that within the row.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("the row cannot be read: {}", shorten(text))
}

struct Cells<'a>(&'a Places);

impl<'de> DeserializeSeed<'de> for Cells<'_> {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Cells<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of cells")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut read = Object::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if read.known.len() + read.others.len() > MOST_COLUMNS {
                return Err(A::Error::custom("there are too many keys"));
            }
            let cell = map.next_value::<Cell>()?;
            match self.0.0.get(name.as_ref()) {
                Some(place) => read.known.push((*place, cell)),
                None => read.others.push((name.into_owned(), cell)),
            }
        }
        Ok(read)
    }
}
