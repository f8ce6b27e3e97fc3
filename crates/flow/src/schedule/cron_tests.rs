use std::collections::BTreeSet;
use std::time::Duration;

use modelyard_kernel::Time;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// The first few times after `after`, as clocks in the zone show them.
fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::read(expression, zone).unwrap();
    let times = std::iter::successors(cron.next(at(after)), |it| cron.next(*it));
    times.take(count).map(|it| cron.local(it)).collect()
}

#[test]
fn names_lists_ranges_and_steps_are_read() {
    for (expression, expected) in [
        ("5,10-12 * * * *", ["2026-01-01T00:05", "2026-01-01T00:10", "2026-01-01T00:11"]),
        ("*/25 * * * *", ["2026-01-01T00:25", "2026-01-01T00:50", "2026-01-01T01:00"]),
        ("0 6 * * mon-FRI/2", ["2026-01-02T06:00", "2026-01-05T06:00", "2026-01-07T06:00"]),
        ("0 0 1 Feb,APR *", ["2026-02-01T00:00", "2026-04-01T00:00", "2027-02-01T00:00"]),
        ("0 0 * * FRI-SUN", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("  0\t0 29  2 * ", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("@Weekly", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
    ] {
        let expected = expected.map(|it| format!("{it}:00+00:00"));
        assert_eq!(times(expression, "UTC", "2026-01-01T00:00:00Z", 3), expected, "{expression}");
    }
}

#[test]
fn a_day_matches_by_its_number_or_its_weekday_when_both_are_restricted() {
    let either = times("0 0 13 * FRI", "UTC", "2026-02-01T00:00:00Z", 5);
    let days: Vec<&str> = either.iter().map(|it| &it[5..10]).collect();
    assert_eq!(days, ["02-06", "02-13", "02-20", "02-27", "03-06"]);
    let weekday = times("0 0 * * FRI", "UTC", "2026-02-01T00:00:00Z", 2);
    assert!(weekday[0].starts_with("2026-02-06") && weekday[1].starts_with("2026-02-13"));
}

#[test]
fn what_differs_from_program_to_program_is_refused() {
    for expression in [
        "",
        "* * * *",
        "* * * * * *",
        "0 0 * * * * 2026",
        "@reboot",
        "@midnight",
        "@daily * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "5/15 * * * *",
        "/5 * * * *",
        "*/0 * * * *",
        "* 22-2 * * *",
        "5-5 * * * *",
        "1-2-3 * * * *",
        "1,,2 * * * *",
        ", * * * *",
        "* * L * *",
        "* * 15W * *",
        "* * * * 5#3",
        "* * ? * *",
        "* * * * +MON",
        "* * MON * *",
        "* * * MON *",
        "* * * * JAN",
        "* * * * MONDAY",
        "H * * * *",
        "* * * * FRI-MON",
        "* * * * 7-1",
        "* * * * 5-0",
        "* * * * SAT-SAT",
        "0000 * * * *",
        "٣ * * * *",
        "*\u{a0}* * * *",
    ] {
        assert!(Cron::read(expression, "UTC").is_err(), "{expression}");
    }
    let long = format!("{} * * * *", "0,".repeat(MAX_LENGTH));
    assert_eq!(Cron::read(&long, "UTC").unwrap_err(), CronError::Length);
}

#[test]
fn a_refusal_names_the_field_and_what_may_be_in_it() {
    let refused = |it| Cron::read(it, "UTC").unwrap_err().to_string();
    assert_eq!(
        refused("0 25 * * *"),
        "`25` is no hour: that is *, a value 0-23, a range such as 0-23, or one of these with a \
         step, such as */2 or 0-23/2; several with commas"
    );
    assert_eq!(
        refused("0 0 * *"),
        "A cron expression has five fields: minute, hour, day of month, month and day of week; \
         `0 0 * *` has 4"
    );
    assert!(refused("@reboot").contains("@hourly, @daily"));
}

#[test]
fn an_expression_whose_days_are_in_no_month_is_refused() {
    for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30-31 FEB *"] {
        assert_eq!(Cron::read(never, "UTC").unwrap_err(), CronError::Never, "{never}");
    }
    // With a weekday that matches as well, there are days.
    assert_eq!(times("0 0 30 2 MON", "UTC", "2026-01-01T00:00:00Z", 1).len(), 1);
    assert_eq!(times("0 0 29-31 2 *", "UTC", "2026-01-01T00:00:00Z", 1).len(), 1);
}

#[test]
fn time_zones_are_known_by_their_names_on_any_machine() {
    for zone in ["UTC", "Europe/Berlin", "europe/berlin", "America/Argentina/Ushuaia"] {
        assert!(Cron::read("* * * * *", zone).is_ok(), "{zone}");
        assert!(TimeZoneDatabase::bundled().get(zone).is_ok(), "{zone}");
    }
    for zone in
        ["", "Mars/Olympus", "localtime", "Etc/Unknown", "../etc/passwd", "right/UTC", "+01:00"]
    {
        let refused = Cron::read("* * * * *", zone).unwrap_err();
        assert_eq!(refused, CronError::Zone(zone.to_owned()));
    }
}

#[test]
fn a_time_that_does_not_happen_fires_when_the_gap_ends() {
    // 02:00 to 03:00 on the 29th of March.
    let berlin =
        |expression, count| times(expression, "Europe/Berlin", "2026-03-28T12:00:00Z", count);
    assert_eq!(berlin("30 2 * * *", 2), ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    // All that the gap has swallowed is made up for once, and not again by what is due then.
    assert_eq!(
        berlin("*/20 2,3 * * *", 4),
        [
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:20:00+02:00",
            "2026-03-29T03:40:00+02:00",
            "2026-03-30T02:00:00+02:00"
        ]
    );
    let hourly = times("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2);
    assert_eq!(hourly, ["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"]);
    // Half an hour, from 02:00.
    assert_eq!(
        times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]
    );
    // A whole day was left out.
    assert_eq!(
        times("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3),
        ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]
    );
}

#[test]
fn a_time_that_happens_twice_fires_twice() {
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"]
    );
    // Also when the next time is in the next summer, which croniter passes over.
    assert_eq!(
        times("30 2 25 10 *", "Europe/Berlin", "2026-10-01T00:00:00Z", 3),
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2027-10-25T02:30:00+02:00"]
    );
    // Saturday has 25 hours: at midnight it is 23 o'clock again.
    assert_eq!(
        times("0 0,23 * * *", "America/Santiago", "2026-04-05T00:00:00Z", 3),
        ["2026-04-04T23:00:00-03:00", "2026-04-04T23:00:00-04:00", "2026-04-05T00:00:00-04:00"]
    );
    assert_eq!(
        times("40 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 3),
        ["2026-04-05T01:40:00+11:00", "2026-04-05T01:40:00+10:30", "2026-04-06T01:40:00+10:30"]
    );
}

#[test]
fn nothing_fires_when_time_is_over() {
    let cron = Cron::read("* * * * *", "UTC").unwrap();
    assert_eq!(cron.next(Time::from_micros(i64::MAX)), None);
    assert_eq!(cron.next(Time::from_micros(i64::MIN)), None);
    assert_eq!(cron.next(at("9999-12-30T22:00:00Z")), None);
}

/// An expression as the sets of values that it means.
#[derive(Clone, Debug)]
struct Meant {
    minutes: Vec<i8>,
    hours: Vec<i8>,
    days: Vec<i8>,
    months: Vec<i8>,
    weekdays: Vec<i8>,
}

impl Meant {
    fn expression(&self) -> String {
        let field = |values: &[i8]| {
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            if texts.is_empty() { "*".to_owned() } else { texts.join(",") }
        };
        let Self { minutes, hours, days, months, weekdays } = self;
        [minutes, hours, days, months, weekdays].map(|it| field(it)).join(" ")
    }

    fn matches(&self, civil: DateTime) -> bool {
        let one = |values: &[i8], value| values.is_empty() || values.contains(&value);
        let day = one(&self.days, civil.day());
        let weekday = one(&self.weekdays, civil.weekday().to_sunday_zero_offset());
        let either = !self.days.is_empty() && !self.weekdays.is_empty();
        one(&self.minutes, civil.minute())
            && one(&self.hours, civil.hour())
            && one(&self.months, civil.month())
            && if either { day || weekday } else { day && weekday }
    }
}

fn meant() -> impl Strategy<Value = Meant> {
    let some = |values: std::ops::Range<i8>| {
        let all: Vec<i8> = values.collect();
        let most = all.len();
        prop_oneof![Just(Vec::new()), subsequence(all.clone(), 1..3), subsequence(all, 1..most)]
    };
    // The 29th of February comes every four years, and a test waits for it.
    (some(0..60), some(0..24), some(1..29), some(1..13), some(0..7)).prop_map(
        |(minutes, hours, days, months, weekdays)| Meant { minutes, hours, days, months, weekdays },
    )
}

const ZONES: [&str; 6] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Antarctica/Troll",
];

/// Instants of ten years, many of them near the changes of an offset.
fn instant() -> impl Strategy<Value = (&'static str, Time)> {
    let begin = at("2026-01-01T00:00:00Z").micros() / 1_000_000;
    let any = (select(&ZONES[..]), begin..begin + 315_000_000).prop_map(|(zone, it)| (zone, it));
    let near = (any.clone(), -10_000..10_000_i64).prop_map(|((zone, second), by)| {
        let from = Timestamp::from_second(second).unwrap();
        let changes = tz::db().get(zone).unwrap();
        let change = changes.following(from).next();
        (zone, change.map_or(second, |it| it.timestamp().as_second()) + by)
    });
    prop_oneof![any, near].prop_map(|(zone, it)| (zone, Time::from_micros(it * 1_000_000)))
}

proptest! {
    #[test]
    fn the_next_time_is_the_first_minute_that_is_meant(
        meant in meant(), (zone, after) in instant(),
    ) {
        let cron = Cron::read(&meant.expression(), zone).unwrap();
        let next = cron.next(after).unwrap();
        prop_assert!(next > after);
        let zone = tz::db().get(zone).unwrap();
        // Minute by minute, for a while: nothing between is meant, and the next is, or ends a gap.
        let minute = 60_000_000;
        let first = after.micros().div_euclid(minute) + 1;
        let mut passed = (first..first + 3000).map(|it| it * minute);
        let expected = passed.find(|micros| {
            let timestamp = Timestamp::from_microsecond(*micros).unwrap();
            let civil = zone.to_datetime(timestamp);
            let before = zone.to_datetime(timestamp - jiff::SignedDuration::from_nanos(1));
            let mut swallowed = std::iter::successors(
                Some(before.with().second(0).subsec_nanosecond(0).build().unwrap()),
                |it| it.checked_add(jiff::SignedDuration::from_mins(1)).ok(),
            );
            let mut gap = swallowed.by_ref().skip(1).take_while(|it| *it < civil);
            meant.matches(civil) || !meant.hours.is_empty() && meant.hours.len() < 24
                && gap.any(|it| meant.matches(it))
        });
        match expected {
            Some(expected) => prop_assert_eq!(next, Time::from_micros(expected)),
            None => prop_assert!(next.micros() >= (first + 3000) * minute),
        }
    }

    #[test]
    fn it_does_not_matter_from_where_one_looks(
        meant in meant(), (zone, after) in instant(), part in 0.0..1.0,
    ) {
        let cron = Cron::read(&meant.expression(), zone).unwrap();
        let next = cron.next(after).unwrap();
        let further = next.since(after).mul_f64(part).saturating_sub(Duration::from_micros(1));
        let between = after.after(further);
        prop_assert_eq!(cron.next(between), Some(next));
        prop_assert!(cron.next(next).unwrap() > next);
    }

    #[test]
    fn what_is_written_in_another_way_means_the_same(meant in meant(), (zone, after) in instant()) {
        let name = |it: &i8| MONTHS[usize::try_from(*it).unwrap() - 1];
        let named: Vec<&str> = meant.months.iter().map(name).collect();
        let mut fields: Vec<String> =
            meant.expression().to_lowercase().split(' ').map(ToOwned::to_owned).collect();
        if !named.is_empty() {
            fields[3] = named.join(",");
        }
        let cron = Cron::read(&meant.expression(), zone).unwrap();
        let again = Cron::read(&fields.join("  "), zone).unwrap();
        prop_assert_eq!(again.next(after), cron.next(after));
    }
}

#[test]
fn a_year_has_as_many_times_as_days() {
    let cron = Cron::read("0 2 * * *", "Europe/Berlin").unwrap();
    let end = at("2027-01-01T00:00:00Z");
    let times = std::iter::successors(cron.next(at("2026-01-01T00:00:00Z")), |it| cron.next(*it));
    let times: BTreeSet<Time> = times.take_while(|it| *it < end).collect();
    // The 25th of October has two.
    assert_eq!(times.len(), 366);
}
