//! Cron expressions: which civil times they name, and which instants those are in a time zone.
//!
//! Five fields (minute, hour, day of month, month, day of week) or a name such as `@daily`. A day
//! matches when its day of month *or* its day of week does, if both fields are something else than
//! `*`. croner finds the civil times; the step to instants is ours, and this is its rule:
//!
//! * A civil time that happens twice, because clocks are set back, fires twice.
//! * A civil time that does not happen, because clocks are set forward, fires at the first instant
//!   after the gap, and several of them fire there once. Where the hour field has every hour (`*`)
//!   nothing is made up for: the next hour is near.
//!
//! This is what croniter does, for which `cargo xtask test` asks it. It holds for every change of a
//! zone's offset, whatever it is called and however long it is.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{self, TimeZone, TimeZoneDatabase};
use modelyard_kernel::Time;
use modelyard_kernel::form::shorten;

/// The longest expression that is read: sixty minutes in a list have less than two hundred letters.
const MAX_LENGTH: usize = 500;

/// What can be said instead of five fields.
const NAMES: [&str; 6] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

/// The days that a month may have, in a leap year.
const DAYS: [u16; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    fields: croner::Cron,
    zone: TimeZone,
    /// Whether the hour field has every hour.
    hourly: bool,
}

/// Why a text is no cron expression, or never fires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// There are more or fewer fields.
    #[error(
        "A cron expression has five fields: minute, hour, day of month, month and day of week; \
         `{0}` has {1}"
    )]
    Fields(String, usize),
    /// A name that stands for no expression.
    #[error("`{0}` is none of {names}", names = NAMES.join(", "))]
    Name(String),
    /// A field that cannot be read.
    #[error(
        "`{item}` is no {field}: that is *, a value {min}-{max}, a range such as {min}-{max}, or \
         one of these with a step, such as */2 or {min}-{max}/2; several with commas"
    )]
    Item {
        /// What was read.
        item: String,
        /// What it should have been.
        field: &'static str,
        /// The least value.
        min: u16,
        /// The greatest value.
        max: u16,
    },
    /// The expression is too long.
    #[error("A cron expression has at most {MAX_LENGTH} characters")]
    Length,
    /// The days are in no month.
    #[error("None of these months has such a day, so it would never fire")]
    Never,
    /// There is no such time zone.
    #[error("There is no time zone `{0}`; one has a name such as Europe/Berlin or UTC")]
    Zone(String),
}

/// What may be in a field.
struct Field {
    name: &'static str,
    min: u16,
    max: u16,
    /// What else its values are called, from `min` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "day of week", min: 0, max: 7, names: &WEEKDAYS },
];

impl Cron {
    /// Reads an expression, and finds its time zone.
    ///
    /// # Errors
    /// When either is none, or no day is ever meant.
    pub fn read(expression: &str, time_zone: &str) -> Result<Self, CronError> {
        let expression = plain(expression)?;
        let zone = zone(time_zone)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        // What is plain can be read, so this is for the day when the two no longer agree.
        let fields = parser.build().parse(&expression);
        let fields = fields.map_err(|_| CronError::Fields(shorten(&expression).to_owned(), 5))?;
        if !has_days(&fields) {
            return Err(CronError::Never);
        }
        let hourly = fields.pattern.hours.values().len() == 24;
        Ok(Self { fields, zone, hourly })
    }

    /// The first time after `after` that it fires.
    ///
    /// Between two changes of the zone's offset civil time runs as time does, so it is looked for
    /// from change to change; what happens twice or not at all is never asked.
    pub fn next(&self, after: Time) -> Option<Time> {
        let after = Timestamp::from_microsecond(after.micros()).ok()?;
        let mut offset = self.zone.to_offset(after);
        let mut civil = self.search(offset.to_datetime(after), false)?;
        for change in self.zone.following(after) {
            let begins = change.timestamp();
            if let Ok(found) = offset.to_timestamp(civil)
                && found < begins
            {
                return Some(Time::from_micros(found.as_microsecond()));
            }
            let first = change.offset().to_datetime(begins);
            let is_gap = change.offset() > offset;
            if is_gap && civil < first && !self.hourly {
                return Some(Time::from_micros(begins.as_microsecond()));
            }
            if !is_gap || civil < first {
                civil = self.search(first, true)?;
            }
            offset = change.offset();
        }
        let found = offset.to_timestamp(civil).ok()?;
        Some(Time::from_micros(found.as_microsecond()))
    }

    /// `time` as a clock in the zone shows it, with its offset: `2026-11-22T06:00:00+01:00`.
    pub fn local(&self, time: Time) -> String {
        let Ok(timestamp) = Timestamp::from_microsecond(time.micros()) else {
            return time.to_string();
        };
        timestamp.display_with_offset(self.zone.to_offset(timestamp)).to_string()
    }

    fn search(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        self.fields.find_next_occurrence(&from, inclusive).ok()
    }
}

/// The expression, its fields one space apart, if it has nothing but what is standard: numbers,
/// names, lists, ranges and steps. What else croner takes (`L`, `W`, `#`, `?`, `+`, names in any
/// field) differs from program to program.
fn plain(expression: &str) -> Result<String, CronError> {
    if expression.len() > MAX_LENGTH {
        return Err(CronError::Length);
    }
    let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
    if let [name] = fields[..]
        && name.starts_with('@')
    {
        let known = NAMES.iter().any(|it| it.eq_ignore_ascii_case(name));
        let unknown = || CronError::Name(shorten(name).to_owned());
        return known.then(|| name.to_owned()).ok_or_else(unknown);
    }
    if fields.len() != FIELDS.len() {
        let shown = shorten(expression).to_owned();
        return Err(CronError::Fields(shown, fields.len()));
    }
    for (field, text) in FIELDS.iter().zip(&fields) {
        for item in text.split(',') {
            if !field.allows(item) {
                let Field { name: field, min, max, .. } = *field;
                let item = shorten(item).to_owned();
                return Err(CronError::Item { item, field, min, max });
            }
        }
    }
    Ok(fields.join(" "))
}

impl Field {
    /// `*`, `5`, `1-5`, `*/2` or `1-5/2`. A step needs a range, since `5/2` means two things.
    fn allows(&self, item: &str) -> bool {
        let (range, step) = item.split_once('/').map_or((item, None), |(a, b)| (a, Some(b)));
        if step.is_some_and(|it| number(it).is_none_or(|it| it == 0)) {
            return false;
        }
        match range.split_once('-') {
            _ if range == "*" => true,
            None => step.is_none() && self.value(range).is_some(),
            Some((first, last)) => match (self.value(first), self.value(last)) {
                // Sunday is the first day of a range and its last.
                (Some(first), Some(0)) if self.max == 7 && !last.starts_with('0') => first < 7,
                (Some(first), Some(last)) => first < last,
                _ => false,
            },
        }
    }

    fn value(&self, text: &str) -> Option<u16> {
        let named = self.names.iter().position(|it| it.eq_ignore_ascii_case(text));
        let named = named.and_then(|it| u16::try_from(it).ok()).map(|it| it + self.min);
        named.or_else(|| number(text).filter(|it| (self.min..=self.max).contains(it)))
    }
}

/// At most three digits.
fn number(text: &str) -> Option<u16> {
    let is_number = text.len() <= 3 && text.bytes().all(|it| it.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Whether there is such a day at all: there is no 30th of February.
fn has_days(fields: &croner::Cron) -> bool {
    let pattern = &fields.pattern;
    let days = pattern.days.values();
    let in_month = |month: u16| {
        let length = DAYS.get(usize::from(month) - 1).copied().unwrap_or(0);
        days.iter().any(|day| *day <= length)
    };
    !pattern.is_dow_wildcard() || pattern.months.values().into_iter().any(in_month)
}

/// The machine's time zones, which are kept up to date there, and those that we bring for a machine
/// that has none, or not all.
fn zone(name: &str) -> Result<TimeZone, CronError> {
    let found = tz::db().get(name).or_else(|_| TimeZoneDatabase::bundled().get(name));
    let missing = || CronError::Zone(shorten(name).to_owned());
    // `localtime` and `Etc/Unknown` are files there, and no time zones.
    found.ok().filter(|it| it.iana_name().is_some_and(|it| it != "localtime")).ok_or_else(missing)
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
