//! What goes into a statement and comes out of a row, alike for both databases.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Error, Result};
use crate::{Time, Ulid};

/// One value of a statement or a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Absent.
    Null,
    /// `BIGINT`, `INTEGER`.
    Int(i64),
    /// `DOUBLE PRECISION`.
    Real(f64),
    /// `TEXT`; `JSON` as well, whose text is kept as it was written.
    Text(String),
    /// `BYTEA`, `BLOB`.
    Bytes(Vec<u8>),
    /// `BOOLEAN`.
    Bool(bool),
    /// `TIMESTAMPTZ`; fixed-width text on SQLite.
    Time(Time),
}

macro_rules! into_value {
    ($($from:ty => |$it:ident| $to:expr),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from($it: $from) -> Self { $to }
        })+
    };
}

into_value! {
    i64 => |it| Self::Int(it),
    i32 => |it| Self::Int(it.into()),
    u32 => |it| Self::Int(it.into()),
    f64 => |it| Self::Real(it),
    bool => |it| Self::Bool(it),
    &str => |it| Self::Text(it.to_owned()),
    &String => |it| Self::Text(it.clone()),
    String => |it| Self::Text(it),
    Vec<u8> => |it| Self::Bytes(it),
    Time => |it| Self::Time(it),
    Ulid => |it| Self::Text(it.to_string()),
    Box<RawValue> => |it| Self::Text(it.get().to_owned()),
    &RawValue => |it| Self::Text(it.get().to_owned()),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Value::Null, Into::into)
    }
}

/// A value stored as JSON text.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Json<T>(pub T);

impl<T: Serialize> From<Json<T>> for Value {
    fn from(it: Json<T>) -> Self {
        let written = serde_json::to_string(&it.0);
        Value::Text(written.expect("only keys that are no texts cannot be written: we have none"))
    }
}

/// Reads a column.
pub trait FromValue: Sized {
    /// `None` when the value is of another type.
    fn from_value(value: Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($to:ty => |$it:ident| $from:expr),+ $(,)?) => {
        $(impl FromValue for $to {
            fn from_value($it: Value) -> Option<Self> { $from }
        })+
    };
}

from_value! {
    Value => |it| Some(it),
    i64 => |it| if let Value::Int(it) = it { Some(it) } else { None },
    u64 => |it| i64::from_value(it).and_then(|it| it.try_into().ok()),
    u32 => |it| i64::from_value(it).and_then(|it| it.try_into().ok()),
    f64 => |it| match it { Value::Real(it) => Some(it), _ => None },
    bool => |it| match it { Value::Bool(it) => Some(it), Value::Int(it) => Some(it != 0), _ => None },
    String => |it| if let Value::Text(it) = it { Some(it) } else { None },
    Vec<u8> => |it| if let Value::Bytes(it) = it { Some(it) } else { None },
    Time => |it| match it {
        Value::Time(it) => Some(it),
        Value::Text(it) => it.parse().ok(),
        _ => None,
    },
    Ulid => |it| String::from_value(it).and_then(|it| Ulid::read(&it)),
    Box<RawValue> => |it| String::from_value(it).and_then(|it| RawValue::from_string(it).ok()),
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl<T: DeserializeOwned> FromValue for Json<T> {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).and_then(|it| serde_json::from_str(&it).ok()).map(Json)
    }
}

/// One row of an answer, read column by column in the order of the statement.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) values: std::vec::IntoIter<Value>,
    pub(crate) names: Option<Arc<[String]>>,
}

impl Row {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self { values: values.into_iter(), names: None }
    }

    /// The next column.
    ///
    /// # Errors
    /// When there is none, or it is of another type: a defect of ours.
    pub fn take<T: FromValue>(&mut self, column: &'static str) -> Result<T> {
        self.values.next().and_then(T::from_value).ok_or(Error::Column(column))
    }

    /// Every column that is left, with its name; for programs that know no table, such as backup.
    pub fn into_columns(self) -> impl Iterator<Item = (String, Value)> {
        let names = self.names.map_or_else(Vec::new, |it| it.to_vec());
        names.into_iter().zip(self.values)
    }
}

/// A type that is read from a row.
pub trait FromRow: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// When the columns are not what the type expects: a defect of ours.
    fn from_row(row: Row) -> Result<Self>;
}

impl FromRow for Row {
    fn from_row(row: Row) -> Result<Self> {
        Ok(row)
    }
}

impl<A: FromValue> FromRow for (A,) {
    fn from_row(mut row: Row) -> Result<Self> {
        Ok((row.take("1")?,))
    }
}

impl<A: FromValue, B: FromValue> FromRow for (A, B) {
    fn from_row(mut row: Row) -> Result<Self> {
        Ok((row.take("1")?, row.take("2")?))
    }
}

impl<A: FromValue, B: FromValue, C: FromValue> FromRow for (A, B, C) {
    fn from_row(mut row: Row) -> Result<Self> {
        Ok((row.take("1")?, row.take("2")?, row.take("3")?))
    }
}

/// A text as it can be stored: models and scripts say what they like, and PostgreSQL's text holds no zero
/// characters.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Declares an enumeration by its words on the wire and in its table, which are its names in snake case.
///
/// ```
/// modelyard_kernel::words! {
///     /// How warm it is.
///     Weather {
///         /// Not.
///         QuiteCold = "quite_cold",
///         /// Very.
///         Hot = "hot",
///     }
/// }
///
/// assert_eq!(Weather::NAMES, ["quite_cold", "hot"]);
/// for name in Weather::NAMES {
///     let weather = Weather::read(name).unwrap();
///     assert_eq!(weather.name(), *name);
///     assert_eq!(serde_json::to_value(weather).unwrap(), *name);
/// }
/// ```
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Each of them by its name on the wire.
            pub const NAMES: &'static [&'static str] = &[$($word),+];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// The one of this name.
            pub fn read(name: &str) -> Option<Self> {
                match name {
                    $($word => Some($name::$variant),)+
                    _ => None,
                }
            }
        }

        impl From<$name> for $crate::db::Value {
            fn from(it: $name) -> Self {
                it.name().into()
            }
        }

        impl $crate::db::FromValue for $name {
            fn from_value(value: $crate::db::Value) -> Option<Self> {
                Self::read(&String::from_value(value)?)
            }
        }
    };
}

/// Names the columns of an entity once: `COLUMNS` for the statement, [`FromRow`] for the answer.
///
/// `columns!(Flag: key, note, enabled);`
#[macro_export]
macro_rules! columns {
    ($entity:ident: $first:ident $(, $field:ident)* $(,)?) => {
        impl $entity {
            /// The columns of a row, in the order that `FromRow` reads.
            pub const COLUMNS: &'static str =
                concat!(stringify!($first) $(, ", ", stringify!($field))*);
        }

        impl $crate::db::FromRow for $entity {
            fn from_row(mut row: $crate::db::Row) -> $crate::db::Result<Self> {
                Ok(Self {
                    $first: row.take(stringify!($first))?,
                    $($field: row.take(stringify!($field))?,)*
                })
            }
        }
    };
}
