//! Frames straight from the bytes of a body, without a JSON value for each of their cells: that takes
//! a fraction of the time and of the memory.
//!
//! This way takes only what is right. It stops at the first thing that is not as it should be, and
//! then [`Frame::read`] goes the long way, which knows the words for all that is wrong. Whatever is
//! taken here is taken there, and is the same; a test compares the two.

use std::cell::Cell as Shared;
use std::collections::HashSet;
use std::fmt;

use modelyard_kernel::form::{Node, Object, Report, Size};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::read::read_schema;
use super::{Cell, Frame, FrameSchema};

/// Tables with more columns go the long way: where they are, a row is expected to be as long.
const MOST_COLUMNS: usize = 10_000;

/// Where `serde_json` finds this key first, it takes the object for something else.
const RAW: &str = "$serde_json::private::RawValue";

/// The frames of a body that were read already.
#[derive(Debug, Default)]
pub struct Frames(Vec<(String, Frame)>);

impl Frames {
    /// Takes a body apart: the frames in it, which are the fields with one of these `keys`, and an
    /// object with its other fields, which may have at most `most_values` values.
    ///
    /// # Errors
    /// When anything is wrong with a frame, or may be.
    pub fn split(
        body: &[u8],
        keys: &[&str],
        most_values: usize,
    ) -> serde_json::Result<(Self, Value)> {
        let left = Shared::new(most_values);
        let mut json = serde_json::Deserializer::from_slice(body);
        let split = json.deserialize_map(Body { keys, left: &left })?;
        json.end()?;
        Ok(split)
    }

    /// A required frame: one that was read already, or one that is read now.
    pub fn required(&mut self, object: &Object<'_>, key: &str) -> Option<Frame> {
        match self.0.iter().position(|(name, _)| name == key) {
            Some(at) => Some(self.0.swap_remove(at).1),
            None => object.required(key).and_then(Frame::read),
        }
    }
}

struct Body<'a> {
    keys: &'a [&'a str],
    left: &'a Shared<usize>,
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = (Frames, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Body { keys, left } = self;
        let (mut frames, mut rest) = (Frames::default(), Map::new());
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key.as_str()) {
                if frames.0.iter().any(|(other, _)| *other == key) {
                    return Err(A::Error::custom(format_args!("`{key}` is there twice")));
                }
                let frame = map.next_value_seed(Table { left })?;
                frames.0.push((key, frame));
            } else if key == RAW {
                return Err(A::Error::custom("a key that has a meaning for us"));
            } else {
                rest.insert(key, map.next_value_seed(Other { left })?);
            }
        }
        Ok((frames, Value::Object(rest)))
    }
}

/// Any other value, while there are not too many.
struct Other<'a> {
    left: &'a Shared<usize>,
}

impl<'de> DeserializeSeed<'de> for Other<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let json = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        let values = Size::of(json.as_bytes()).values;
        let left = self.left.get().checked_sub(values);
        self.left.set(left.ok_or_else(|| D::Error::custom("there are too many JSON values"))?);
        serde_json::from_str(json).map_err(D::Error::custom)
    }
}

/// A frame.
struct Table<'a> {
    left: &'a Shared<usize>,
}

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = Frame;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Frame, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = Frame;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `columns` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame, A::Error> {
        let (mut columns, mut data, mut schema) = (None::<Vec<String>>, None::<Vec<_>>, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "columns" if columns.is_none() => columns = Some(map.next_value_seed(Columns)?),
                "data" if data.is_none() => {
                    let width = columns.as_ref().map(Vec::len);
                    data = Some(map.next_value_seed(Rows { width })?);
                }
                "schema" if schema.is_none() => {
                    schema = Some(map.next_value_seed(Other { left: self.left })?);
                }
                _ => return Err(A::Error::custom(format_args!("`{key}` is not expected here"))),
            }
        }
        let columns = columns.ok_or_else(|| A::Error::missing_field("columns"))?;
        let data: Vec<Vec<Cell>> = data.ok_or_else(|| A::Error::missing_field("data"))?;
        // Where `data` came first, all rows are as long as the first one.
        if let Some(row) = data.first().filter(|row| row.len() != columns.len()) {
            return Err(ragged(row.len(), columns.len()));
        }
        let schema = match schema.filter(|it| !it.is_null()) {
            Some(schema) => Some(check_schema(&schema, &columns)?),
            None => None,
        };
        Ok(Frame { columns, data, schema })
    }
}

fn ragged<E: Error>(cells: usize, columns: usize) -> E {
    E::custom(format_args!("the row has {cells} cells, but there are {columns} columns"))
}

fn check_schema<E: Error>(schema: &Value, columns: &[String]) -> Result<FrameSchema, E> {
    let report = Report::new();
    let read = read_schema(&Node::at(&[], schema, &report), Some(columns));
    match (report.finish(), read) {
        (Ok(()), Some(schema)) => Ok(schema),
        (Err(violations), _) => {
            Err(E::custom(violations.first().map_or("the schema is wrong", |it| &it.msg)))
        }
        (Ok(()), None) => Err(E::custom("the schema is wrong")),
    }
}

/// Names, each of them once.
struct Columns;

impl<'de> DeserializeSeed<'de> for Columns {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Columns {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut columns: Vec<String> = Vec::new();
        while let Some(column) = items.next_element()? {
            if columns.len() == MOST_COLUMNS {
                return Err(A::Error::custom("there are too many columns"));
            }
            columns.push(column);
        }
        let mut seen = HashSet::with_capacity(columns.len());
        match columns.iter().find(|column| !seen.insert(column.as_str())) {
            Some(twice) => Err(A::Error::custom(format_args!("column '{twice}' is there twice"))),
            None => Ok(columns),
        }
    }
}

/// Rows that are all of the same length.
struct Rows {
    width: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Vec<Vec<Cell>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Vec<Vec<Cell>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        let mut width = self.width;
        while let Some(row) = items.next_element_seed(Row { width })? {
            width.get_or_insert(row.len());
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A row of so many cells, if that is known.
struct Row {
    width: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Row {
    type Value = Vec<Cell>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Cell>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row {
    type Value = Vec<Cell>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of cells")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Cell>, A::Error> {
        let mut row = Vec::with_capacity(self.width.unwrap_or_default());
        while self.width.is_none_or(|width| row.len() < width)
            && let Some(cell) = items.next_element()?
        {
            row.push(cell);
        }
        match self.width {
            Some(width) if row.len() < width => Err(ragged(row.len(), width)),
            Some(width) => match items.next_element::<IgnoredAny>()? {
                Some(_) => Err(A::Error::custom(format_args!(
                    "the row has more cells than there are columns, which are {width}"
                ))),
                None => Ok(row),
            },
            None => Ok(row),
        }
    }
}
