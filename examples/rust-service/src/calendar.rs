//! Months and weeks as numbers whose neighbours differ by one.

use std::f64::consts::TAU;

use jiff::{
    SignedDuration, Span,
    civil::{Date, ISOWeekDate, Weekday, date},
};
use serde::{Deserialize, Serialize};

/// The number of a month or of a week, depending on the [`Calendar`].
pub type Period = i32;

/// Sine and cosine of the yearly wave, then of the half-yearly one.
pub type Season = [f64; 4];

/// How periods are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calendar {
    /// Months since January of the year 0.
    Monthly,
    /// ISO weeks since the one that begins on 1 January of the year 1, a Monday.
    Weekly,
}

impl Calendar {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Calendar::Monthly => "monthly",
            Calendar::Weekly => "weekly",
        }
    }

    /// The length of a year, in periods.
    pub fn year(self) -> Period {
        match self {
            Calendar::Monthly => 12,
            Calendar::Weekly => 52,
        }
    }

    /// The length of a month, in periods.
    pub fn month(self) -> Period {
        match self {
            Calendar::Monthly => 1,
            Calendar::Weekly => 4,
        }
    }

    /// Where the year stands in the middle of the period. With `a = 2π · day of the year / 365.25`:
    /// `sin a, cos a, sin 2a, cos 2a`.
    pub fn season(self, period: Period) -> Season {
        let angle = TAU * f64::from(self.middle(period).day_of_year()) / 365.25;
        [angle.sin(), angle.cos(), (2.0 * angle).sin(), (2.0 * angle).cos()]
    }

    /// 0 for January, 11 for December.
    pub fn month_of_year(self, period: Period) -> usize {
        usize::from(self.middle(period).month().unsigned_abs() - 1)
    }

    /// A day in the middle of the period. Periods that no calendar has are taken for its last one.
    fn middle(self, period: Period) -> Date {
        match self {
            Calendar::Monthly => {
                let months = Span::new().try_months(period).unwrap_or_default();
                date(0, 1, 15).saturating_add(months)
            }
            Calendar::Weekly => {
                let thursday = i64::from(period) * 7 + 3;
                date(1, 1, 1).saturating_add(SignedDuration::from_hours(thursday * 24))
            }
        }
    }
}

/// Reads `2023-W05` as an ISO week; `2023-01`, `202301` and `2023-01-31` as a month. None for
/// anything else, a week 53 in a year of 52 among it.
pub fn read_period(text: &str) -> Option<(Calendar, Period)> {
    let (year, rest) = text.split_at_checked(4)?;
    let year = number(year).filter(|year| *year >= 1000)?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    if let Some(week) = rest.strip_prefix('W') {
        if !(1..=2).contains(&week.len()) {
            return None;
        }
        let week = i8::try_from(number(week)?).ok()?;
        let monday = ISOWeekDate::new(year, week, Weekday::Monday).ok()?.date();
        let days = monday.duration_since(date(1, 1, 1)).as_hours() / 24;
        return Some((Calendar::Weekly, Period::try_from(days / 7).ok()?));
    }
    let (month, rest) = rest.split_at_checked(2)?;
    let month = number(month).filter(|month| (1..=12).contains(month))?;
    let is_whole = match rest.strip_prefix('-') {
        Some(day) => day.len() == 2 && number(day).is_some(),
        None => rest.is_empty(),
    };
    is_whole.then(|| (Calendar::Monthly, Period::from(year) * 12 + Period::from(month) - 1))
}

/// Digits only, where `parse` would take a sign as well.
fn number(digits: &str) -> Option<i16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_in_the_three_ways_they_are_written() {
        let january = Some((Calendar::Monthly, 2023 * 12));
        for text in ["2023-01", "202301", "2023-01-31"] {
            assert_eq!(read_period(text), january, "{text}");
        }
        assert_eq!(read_period("2022-12"), Some((Calendar::Monthly, 2023 * 12 - 1)));
    }

    #[test]
    fn weeks_go_on_over_the_turn_of_the_year() {
        let week = |text| {
            read_period(text).map(|(calendar, period)| {
                assert_eq!(calendar, Calendar::Weekly);
                period
            })
        };
        assert_eq!(week("2020-W53").unwrap() + 1, week("2021-W01").unwrap());
        assert_eq!(week("2021-W52").unwrap() + 1, week("2022-W1").unwrap());
        assert_eq!(week("2021W07"), week("2021-W7"));
        assert_eq!(week("2021-W53"), None, "2021 had 52 weeks");
    }

    #[test]
    fn other_texts_are_no_periods() {
        for text in [
            "",
            "2023",
            "2023-13",
            "2023-00",
            "0999-01",
            "23-01",
            "2023-1",
            "2023-01-1",
            "2023-W",
            "2023-W00",
            "2023-W54",
            "2023-W+5",
            "2023-W005",
            "+202-01",
            "2023-01-",
            "2023-01-31T",
            "January",
            "２０２３-01",
            "2023-é",
        ] {
            assert_eq!(read_period(text), None, "{text}");
        }
    }

    #[test]
    fn a_period_knows_its_month() {
        let month = |text| {
            let (calendar, period) = read_period(text).unwrap();
            calendar.month_of_year(period)
        };
        assert_eq!(month("2023-01"), 0);
        assert_eq!(month("2024-12"), 11);
        assert_eq!(month("2020-W53"), 11, "its Thursday is the last day of the year");
        assert_eq!(month("2021-W01"), 0);
    }

    #[test]
    fn periods_beyond_all_calendars_have_a_season_still() {
        for calendar in [Calendar::Monthly, Calendar::Weekly] {
            for period in [Period::MIN, -1, 0, Period::MAX] {
                assert!(calendar.season(period).iter().all(|it| it.is_finite()));
                assert!(calendar.month_of_year(period) < 12);
            }
        }
    }
}
