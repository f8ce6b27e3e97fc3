//! One cell of a frame. Small, because frames have millions of them: a third of the size of a
//! `serde_json::Value`, and short texts need no memory of their own.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};

/// Text, a number, a boolean or nothing. Numbers keep their form: `1.0` is not `1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Cell {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
}

impl Cell {
    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Cell::Text(text) = self { Some(text.as_str()) } else { None }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number().and_then(Number::as_f64)
    }

    /// The number, if it is a whole one in this range. `1.0` is none.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// The number, if it is a whole one in this range. `1.0` is none.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// The number in the form in which it came, if it is one.
    pub fn as_number(&self) -> Option<&Number> {
        if let Cell::Number(number) = self { Some(number) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Cell::Bool(value) = self { Some(*value) } else { None }
    }

    /// The cell that a JSON value stands for; none for lists and objects.
    pub(super) fn of(value: &Value) -> Option<Cell> {
        match value {
            Value::Null => Some(Cell::Null),
            Value::Bool(value) => Some(Cell::Bool(*value)),
            Value::Number(number) => Some(Cell::Number(number.clone())),
            Value::String(text) => Some(text.as_str().into()),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The text of a cell.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text(Kept);

/// Most texts are a period, or the name of a place.
const SHORT: usize = 22;

/// Equal texts are kept in the same way, so that what is derived compares and hashes texts.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kept {
    /// The first bytes, of which there are `length`; the others are zero.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<str>),
}

impl Text {
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Short { length, bytes } => {
                let text = bytes.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(text).expect("they were a text")
            }
            Kept::Long(text) => text,
        }
    }

    fn short(text: &str) -> Option<Self> {
        let mut bytes = [0; SHORT];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Text(Kept::Short { length: u8::try_from(text.len()).ok()?, bytes }))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::short(text).unwrap_or_else(|| Text(Kept::Long(text.into())))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text::short(&text).unwrap_or_else(|| Text(Kept::Long(text.into())))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text.into())
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Cell::Bool(value)
    }
}

impl From<Number> for Cell {
    fn from(number: Number) -> Self {
        Cell::Number(number)
    }
}

/// JSON has no infinities and no "not a number": they become null.
impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Number::from_f64(value).map_or(Cell::Null, Cell::Number)
    }
}

impl From<f32> for Cell {
    fn from(value: f32) -> Self {
        f64::from(value).into()
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for Cell {
            fn from(value: $integer) -> Self {
                Cell::Number(value.into())
            }
        }
    )*};
}

from_integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

/// Nothing is null.
impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// A list or an object, which no cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cell is text, a number, a boolean or null")]
pub struct NotACell;

impl TryFrom<Value> for Cell {
    type Error = NotACell;

    fn try_from(value: Value) -> Result<Self, NotACell> {
        Cell::of(&value).ok_or(NotACell)
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Null => Value::Null,
            Cell::Bool(value) => Value::Bool(value),
            Cell::Number(number) => Value::Number(number),
            Cell::Text(text) => Value::String(text.as_str().to_owned()),
        }
    }
}

impl PartialEq<str> for Cell {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == Some(text)
    }
}

impl PartialEq<&str> for Cell {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == Some(text)
    }
}

/// For tests, which write rows as `json!`.
impl PartialEq<Value> for Cell {
    fn eq(&self, value: &Value) -> bool {
        Cell::of(value).as_ref() == Some(self)
    }
}

/// As JSON.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Bool(value) => value.fmt(f),
            Cell::Number(number) => number.fmt(f),
            Cell::Text(text) => Value::from(text.as_str()).fmt(f),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Null => serializer.serialize_unit(),
            Cell::Bool(value) => serializer.serialize_bool(*value),
            Cell::Number(number) => number.serialize(serializer),
            Cell::Text(text) => serializer.serialize_str(text.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyCell)
    }
}

struct AnyCell;

impl Visitor<'_> for AnyCell {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a boolean or null")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Cell, E> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn hash(it: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        it.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_cell_is_small() {
        assert_eq!(size_of::<Cell>(), 24);
    }

    #[test]
    fn numbers_keep_their_form() {
        let wire = "[1,1.0,-0.0,-9223372036854775808,18446744073709551615,1e300,0.1,5e-324,null,\
                    true,\"\",\"\\u0000 é😀 and more than twenty-two\"]";
        let cells: Vec<Cell> = serde_json::from_str(wire).unwrap();
        let values: Vec<Value> = serde_json::from_str(wire).unwrap();
        assert_eq!(serde_json::to_string(&cells).unwrap(), serde_json::to_string(&values).unwrap());
        assert_eq!(cells, values);
        // As long as a float can hold it, nobody hears that it was a whole number.
        let large: Cell = serde_json::from_str("123456789012345678901234").unwrap();
        assert_eq!(large, Cell::from(1.234_567_890_123_456_8e23));
    }

    #[test]
    fn lists_and_objects_are_no_cells() {
        for nested in ["[]", "[1]", "{}", "{\"a\":1}"] {
            assert!(serde_json::from_str::<Cell>(nested).is_err());
            assert_eq!(
                Cell::try_from(serde_json::from_str::<Value>(nested).unwrap()),
                Err(NotACell)
            );
        }
    }

    #[test]
    fn cells_come_from_what_models_compute_with() {
        let cells: [Cell; 9] = [
            1.5.into(),
            f64::NAN.into(),
            3_usize.into(),
            (-3).into(),
            "a".into(),
            String::from("a").into(),
            true.into(),
            None::<f64>.into(),
            Some("a").into(),
        ];
        assert_eq!(json!(cells), json!([1.5, null, 3, -3, "a", "a", true, null, "a"]));
        assert!(cells[4] == "a" && cells[4] == *"a" && cells[0] != "a");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-2..3).prop_map(|it| Value::from(f64::from(it))),
            (-2..3).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            "[a-b]{21,24}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn a_cell_is_what_its_json_is(one in any_value(), other in any_value()) {
            let cell = Cell::try_from(one.clone()).unwrap();
            prop_assert_eq!(&Value::from(cell.clone()), &one);
            let text = serde_json::to_string(&one).unwrap();
            prop_assert_eq!(serde_json::to_string(&cell).unwrap(), text.as_str());
            prop_assert_eq!(cell.to_string(), text.as_str());
            prop_assert_eq!(&serde_json::from_str::<Cell>(&text).unwrap(), &cell);
            prop_assert_eq!(cell.as_str(), one.as_str());
            prop_assert_eq!(cell.as_f64(), one.as_f64());
            prop_assert_eq!(cell.as_i64(), one.as_i64());
            prop_assert_eq!(cell.as_u64(), one.as_u64());
            prop_assert_eq!(cell.as_bool(), one.as_bool());
            let another = Cell::try_from(other.clone()).unwrap();
            prop_assert_eq!(cell == another, one == other);
            prop_assert_eq!(cell == other, one == other);
            prop_assert!(cell != another || hash(&cell) == hash(&another));
        }
    }
}
