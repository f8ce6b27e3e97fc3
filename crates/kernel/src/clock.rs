//! Time and ids, passed in so that a test can hold them still.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::Ulid;

/// An instant, to the microsecond, always in UTC.
///
/// Printed as fixed-width RFC 3339 (`2026-11-20T08:52:32.940128Z`), so that text order is time
/// order in a database column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

impl Time {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// This instant moved by `by` into the future.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant moved by `by` into the past.
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The contract's form for entities: UTC to the second, without an offset.
    pub fn to_seconds(self) -> String {
        self.written().seconds().to_owned()
    }

    /// The contract's form inside model metadata: microseconds and `+00:00`.
    pub fn to_offset(self) -> String {
        let written = self.written();
        format!("{}+00:00", written.whole().trim_end_matches('Z'))
    }

    /// Lists show hundreds of times, so this is done by hand.
    fn written(self) -> Written {
        let timestamp = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::MAX);
        let it = Offset::UTC.to_datetime(timestamp);
        let mut buffer = *b"0000-00-00T00:00:00.000000Z";
        let micros = self.0.rem_euclid(1_000_000);
        for (end, width, number) in [
            (4, 4, i64::from(it.year().max(0))),
            (7, 2, i64::from(it.month())),
            (10, 2, i64::from(it.day())),
            (13, 2, i64::from(it.hour())),
            (16, 2, i64::from(it.minute())),
            (19, 2, i64::from(it.second())),
            (26, 6, micros),
        ] {
            let mut rest = number.unsigned_abs();
            for place in (end - width..end).rev() {
                // The remainder of a division by ten is one digit.
                buffer[place] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
        }
        Written(buffer)
    }

    /// Reads what [`Time::written`] wrote, which is what databases give back.
    fn read_written(text: &str) -> Option<Self> {
        let bytes: &[u8; 27] = text.as_bytes().try_into().ok()?;
        let marks =
            [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
            return None;
        }
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().try_fold(0_i32, |sum, digit| {
                digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0'))
            })
        };
        let small = |from, to| number(from, to).and_then(|it| i8::try_from(it).ok());
        let date = Date::new(number(0, 4)?.try_into().ok()?, small(5, 7)?, small(8, 10)?).ok()?;
        let time = date.at(0, 0, 0, 0);
        let midnight = Offset::UTC.to_timestamp(time).ok()?.as_microsecond();
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = i64::from((hour * 60 + minute) * 60 + second);
        Some(Self(midnight + seconds * 1_000_000 + i64::from(number(20, 26)?)))
    }
}

/// `2026-11-20T08:52:32.940128Z`, on the stack.
struct Written([u8; 27]);

impl Written {
    fn whole(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn seconds(&self) -> &str {
        self.whole().get(..19).unwrap_or_default()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.written().whole())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.written().whole())
    }
}

/// Writes an instant in the contract's form for entities; for `#[serde(serialize_with = …)]`.
///
/// # Errors
/// Those of the serializer.
pub fn seconds<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(time.written().seconds())
}

/// A text that is not an instant.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a date and time such as `2026-11-20T08:52:32Z`")]
pub struct NotATime(String);

impl FromStr for Time {
    type Err = NotATime;

    /// Takes RFC 3339, and the contract's form without an offset, which means UTC; a date alone
    /// means its midnight.
    fn from_str(it: &str) -> Result<Self, Self::Err> {
        if let Some(time) = Self::read_written(it) {
            return Ok(time);
        }
        let instant = it.parse::<Timestamp>().ok().or_else(|| {
            let civil = it.parse::<jiff::civil::DateTime>().ok()?;
            Offset::UTC.to_timestamp(civil).ok()
        });
        instant.map(|it| Self(it.as_microsecond())).ok_or_else(|| NotATime(it.to_owned()))
    }
}

/// Where "now" and new ids come from.
#[derive(Clone, Debug)]
pub struct Clock {
    held: Option<Arc<AtomicI64>>,
    last: Arc<Mutex<ulid::Ulid>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { held: None, last: Arc::new(Mutex::new(ulid::Ulid::nil())) }
    }

    /// Starts at a fixed instant and moves only when [`Clock::advance`] is called.
    pub fn fixed(start: Time) -> Self {
        Self { held: Some(Arc::new(AtomicI64::new(start.0))), ..Self::system() }
    }

    /// The present instant.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Time {
        match &self.held {
            None => Time(Timestamp::now().as_microsecond()),
            Some(held) => Time(held.load(Ordering::Relaxed)),
        }
    }

    /// A new id, later in order than every id this clock gave before.
    pub fn ulid(&self) -> Ulid {
        let millis = u64::try_from(self.now().0 / 1000).unwrap_or(0);
        let mut last = self.last.lock();
        // Within one millisecond the random part counts up, so that order of making is order of ids.
        let next = if millis > last.timestamp_ms() {
            Ok(ulid::Ulid::from_parts(millis, rand_bits()))
        } else {
            last.increment()
        };
        *last =
            next.unwrap_or_else(|_| ulid::Ulid::from_parts(last.timestamp_ms() + 1, rand_bits()));
        Ulid::from(*last)
    }

    /// Moves a fixed clock; the system's clock stays where it is.
    pub fn advance(&self, by: Duration) {
        if let Some(held) = &self.held {
            held.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }
}

/// 80 random bits with the highest clear, so that there is room to count up.
#[expect(clippy::disallowed_methods, reason = "for its random bits; its time is not used")]
fn rand_bits() -> u128 {
    let bits: u128 = ulid::Ulid::generate().random();
    bits & ((1 << 79) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_in_the_three_forms_of_the_contract() {
        let time: Time = "2026-11-20T08:52:32.940128Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-20T08:52:32.940128Z");
        assert_eq!(time.to_seconds(), "2026-11-20T08:52:32");
        assert_eq!(time.to_offset(), "2026-11-20T08:52:32.940128+00:00");
        assert_eq!("2026-11-20T08:52:32".parse::<Time>().unwrap().micros() % 1_000_000, 0);
        assert!("yesterday".parse::<Time>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn times_come_back_as_they_went(micros in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let time = Time::from_micros(micros);
            let text = time.to_string();
            proptest::prop_assert_eq!(Time::read_written(&text), Some(time));
            let slowly = text.parse::<Timestamp>().unwrap().as_microsecond();
            proptest::prop_assert_eq!(slowly, micros);
        }
    }

    #[test]
    fn ids_made_within_one_millisecond_are_in_order() {
        let clock = Clock::fixed(Time::from_micros(1_700_000_000_000_000));
        let ids: Vec<Ulid> = (0..1000).map(|_| clock.ulid()).collect();
        assert!(ids.windows(2).all(|it| it[0] < it[1]));
    }
}
