//! Ids: ULIDs, as the contract has them, in a type of their own per entity.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// 128 bits whose text form (26 characters of Crockford's base 32) sorts by time of making.
/// See <https://github.com/ulid/spec>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ulid(ulid::Ulid);

impl Ulid {
    /// Reads 26 characters in any case; `None` when they are no ULID.
    pub fn read(text: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() && !b"ILOUilou".contains(&c);
        let fits = text.len() == 26
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|c| c.is_ascii_digit() && c <= b'7');
        if fits { ulid::Ulid::from_string(text).ok().map(Self) } else { None }
    }
}

impl From<ulid::Ulid> for Ulid {
    fn from(it: ulid::Ulid) -> Self {
        Self(it)
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(self.0.array_to_str(&mut buffer))
    }
}

impl FromStr for Ulid {
    type Err = NotAUlid;

    fn from_str(text: &str) -> Result<Self, NotAUlid> {
        Self::read(text).ok_or_else(|| NotAUlid(text.to_owned()))
    }
}

impl Serialize for Ulid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; ulid::ULID_LEN];
        serializer.serialize_str(self.0.array_to_str(&mut buffer))
    }
}

impl<'de> serde::Deserialize<'de> for Ulid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no ULID.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a ULID")]
pub struct NotAUlid(pub String);

/// Declares the id type of an entity, so that a job's id cannot be passed where a config's is due.
#[macro_export]
macro_rules! entity_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize,
            serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $crate::Ulid);

        impl $name {
            /// A new id, later in order than every one made before.
            pub fn new(clock: &$crate::Clock) -> Self {
                Self(clock.ulid())
            }

            /// Reads an id from a request's path.
            ///
            /// # Errors
            /// `invalid_ulid` when the text is none.
            pub fn read(text: &str) -> $crate::Result<Self> {
                $crate::Ulid::read(text).map(Self).ok_or_else(|| $crate::Failure::invalid_ulid(text))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$crate::Ulid> for $name {
            fn from(it: $crate::Ulid) -> Self {
                Self(it)
            }
        }

        impl From<$name> for $crate::db::Value {
            fn from(it: $name) -> Self {
                Self::Text(it.0.to_string())
            }
        }

        impl $crate::db::FromValue for $name {
            fn from_value(value: $crate::db::Value) -> Option<Self> {
                <$crate::Ulid as $crate::db::FromValue>::from_value(value).map(Self)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_any_case_and_printed_in_upper_case() {
        let id = Ulid::read("01m7w2gjgnph03kt3s3w4grb46").unwrap();
        assert_eq!(id.to_string(), "01M7W2GJGNPH03KT3S3W4GRB46");
    }

    #[test]
    fn what_is_no_ulid_is_refused() {
        for bad in ["", "nope", "81M7W2GJGNPH03KT3S3W4GRB46", "01M7W2GJGNPH03KT3S3W4GRB4I", "é"] {
            assert_eq!(Ulid::read(bad), None, "{bad}");
        }
    }
}
