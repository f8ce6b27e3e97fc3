//! What a limit allows, over simulated arrivals.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use proptest::prelude::*;

use super::super::model::{CEILING, Period, Policy, Rule, State};
use super::{NOW, policy};

const DAY: i64 = 86_400_000_000;

#[test]
fn limits_are_read_strictly() {
    for text in [
        "1/second",
        "100/minute",
        "100/minute burst 20",
        "1000/hour per tenant",
        "50/day burst 5 per key",
        "quota 100000/month",
        "quota 1/hour per address",
        "1000000000/day",
    ] {
        assert_eq!(policy(text).to_string(), text);
    }
    for text in [
        "",
        "100",
        "/minute",
        "0/minute",
        "-1/minute",
        "+1/minute",
        "1.5/minute",
        "01/minute",
        "1000000001/day",
        "18446744073709551616/day",
        "100 / minute",
        "100/minutes",
        "100/Minute",
        " 100/minute",
        "100/minute ",
        "100/minute  burst 20",
        "100/minute burst",
        "100/minute burst 0",
        "100/minute burst 20 burst 20",
        "100/minute per everybody",
        "100/minute per user burst 20",
        "100/month",
        "quota 100/minute",
        "quota 100/day burst 5",
        "quota",
        "999983/day",
        "\u{661}/minute",
    ] {
        assert!(text.parse::<Policy>().is_err(), "{text:?} was read");
    }
}

#[test]
fn what_is_wrong_with_a_limit_is_said() {
    let why = |text: &str| text.parse::<Policy>().unwrap_err().to_string();
    assert_eq!(
        why("10/fortnight"),
        "its period is not `second`, `minute`, `hour`, `day` or `month`; a limit is written as \
         `100/minute`, `100/minute burst 20` or `quota 5000/month`"
    );
    assert!(why("100/month").starts_with("only a quota is for a month"));
}

#[test]
fn a_limit_takes_its_burst_at_once_and_then_its_rate() {
    let limit = policy("60/minute burst 3");
    let (mut state, mut now) = (None, NOW);
    let mut ask = |now| {
        let at = limit.at(state, now);
        let allowed = limit.allows(at, 1);
        let next = if allowed { limit.take(at, 1) } else { at };
        state = Some(next);
        (allowed, limit.standing(next, now, 1))
    };
    assert_eq!((0..4).map(|_| ask(now).0).collect::<Vec<_>>(), [true, true, true, false]);
    let standing = ask(now).1;
    assert_eq!((standing.remaining, standing.retry), (0, Some(Duration::from_secs(1))));
    assert_eq!(standing.reset, Duration::from_secs(3));
    now += 999_999;
    assert!(!ask(now).0);
    assert!(ask(now + 1).0);
    assert!(!ask(now + 1).0);
}

#[test]
fn more_than_the_burst_is_never_allowed() {
    let limit = policy("10/second");
    let empty = limit.at(None, NOW);
    assert!(limit.allows(empty, 10) && !limit.allows(empty, 11));
    assert_eq!(limit.standing(empty, NOW, 11).retry, None);
    assert!(!limit.allows(empty, u64::MAX));
    assert_eq!(limit.take(empty, u64::MAX).used, CEILING);
}

#[test]
fn a_quota_begins_anew_with_its_window() {
    let month = policy("quota 3/month");
    let end = "2028-02-29T23:59:59.999999Z".parse::<Timestamp>().unwrap().as_microsecond();
    let used = month.take(month.at(None, end - 10 * DAY), 3);
    assert!(!month.allows(month.at(Some(used), end), 1));
    let standing = month.standing(month.at(Some(used), end), end, 1);
    assert_eq!((standing.remaining, standing.retry), (0, Some(Duration::from_micros(1))));
    assert!(month.allows(month.at(Some(used), end + 1), 3));
    // A clock that is corrected a little finds the window that it left.
    let next = month.take(month.at(Some(used), end + 1), 1);
    assert_eq!(month.at(Some(next), end), next);
}

#[test]
fn a_clock_that_is_set_back_locks_nobody_out() {
    let limit = policy("1/minute");
    let used = limit.take(limit.at(None, NOW), 1);
    assert_eq!(limit.at(Some(used), NOW - 500_000), used);
    let set_back = limit.at(Some(used), NOW - DAY);
    assert_eq!((set_back.at, set_back.used), (NOW - DAY, used.used));
    assert!(limit.allows(limit.at(Some(set_back), NOW - DAY + 60_000_000), 1));
}

#[test]
fn what_was_reserved_is_given_back_or_owed() {
    let limit = policy("60/minute burst 10");
    let reserved = limit.take(limit.at(None, NOW), 8);
    let left = |state: State| limit.standing(state, NOW, 1).remaining;
    assert_eq!(left(reserved), 2);
    assert_eq!(left(limit.settle(reserved, NOW, 8, 3)), 7);
    // Three have drained meanwhile, and would be given twice.
    let later = limit.at(Some(reserved), NOW + 3_000_000);
    assert_eq!(left(limit.settle(later, NOW, 8, 3)), 7);
    let debt = limit.settle(reserved, NOW, 8, 25);
    assert_eq!(left(debt), 0);
    assert_eq!(limit.standing(debt, NOW, 1).retry, Some(Duration::from_secs(16)));

    let quota = policy("quota 10/hour");
    let reserved = quota.take(quota.at(None, NOW), 8);
    assert_eq!(quota.settle(reserved, NOW, 8, 3).used, 3);
    let next = quota.take(quota.at(Some(reserved), NOW + 3_600_000_000), 2);
    assert_eq!(quota.settle(next, NOW, 8, 3), next, "its window is over");
}

fn rates() -> impl Strategy<Value = Policy> {
    let period = prop_oneof![Just("second"), Just("minute"), Just("hour"), Just("day")];
    (1..5_000_u64, period, proptest::option::of(1..60_u64)).prop_map(|(count, period, burst)| {
        let burst = burst.map_or_else(String::new, |it| format!(" burst {it}"));
        policy(&format!("{count}/{period}{burst}"))
    })
}

/// Arrivals, in microseconds from one to the next, with costs. Some come together, some after long.
fn arrivals() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let pause = prop_oneof![
        3 => Just(0_i64),
        3 => 0..2_000_000_i64,
        1 => 0..4_000_000_000_i64,
    ];
    let cost = prop_oneof![4 => Just(1_u64), 1 => 1..8_u64];
    proptest::collection::vec((pause, cost), 1..150)
}

/// Whether `cost` more at `now` is within burst + rate × time, counted from each accepted arrival and from
/// now alone: the definition, in other words than the bucket has.
fn fits(limit: &Policy, accepted: &[(i64, u64)], now: i64, cost: u64) -> bool {
    let Rule::Rate { burst, .. } = limit.rule() else { panic!("{limit} is no rate") };
    let period = i128::from(limit.period().micros());
    let mut sum = i128::from(cost);
    let within = |sum: i128, time: i64| {
        (sum - i128::from(burst)) * period <= i128::from(limit.count()) * i128::from(time)
    };
    if !within(sum, 0) {
        return false;
    }
    accepted.iter().rev().all(|(at, cost)| {
        sum += i128::from(*cost);
        within(sum, now - at)
    })
}

proptest! {
    #[test]
    fn exactly_what_fits_burst_and_rate_is_allowed(limit in rates(), arrivals in arrivals()) {
        let (mut now, mut state, mut accepted) = (NOW, None, Vec::new());
        for (pause, cost) in arrivals {
            now += pause;
            let at = limit.at(state, now);
            let allowed = limit.allows(at, cost);
            prop_assert_eq!(allowed, fits(&limit, &accepted, now, cost), "at {}", now - NOW);
            if allowed {
                accepted.push((now, cost));
            }
            state = Some(if allowed { limit.take(at, cost) } else { at });
            // Who waits as long as was said is let in, and not a microsecond earlier.
            let left = limit.standing(state.unwrap(), now, cost);
            if let Some(wait) = left.retry.filter(|it| !it.is_zero()) {
                let wait = i64::try_from(wait.as_micros()).unwrap();
                prop_assert!(limit.allows(limit.at(state, now + wait), cost));
                prop_assert!(!limit.allows(limit.at(state, now + wait - 1), cost));
            }
        }
    }

    #[test]
    fn who_always_asks_gets_burst_and_rate_but_for_one(
        limit in rates(),
        pauses in proptest::collection::vec(prop_oneof![Just(0_i64), 0..=1000_i64], 1..2000),
    ) {
        let Rule::Rate { burst, .. } = limit.rule() else { panic!("it is a rate") };
        // With a burst of one, who comes a little early loses what drains until he comes again.
        prop_assume!(burst > 1);
        let (count, period) = (i64::try_from(limit.count()).unwrap(), limit.period().micros());
        let (mut now, mut state, mut offered, mut allowed) = (NOW, None, 0, 0);
        for pause in pauses {
            // Never longer than one request takes to drain, so that somebody asks for all that there is.
            now += period * pause / count / 1000;
            offered += 1;
            let at = limit.at(state, now);
            let is_allowed = limit.allows(at, 1);
            allowed += u64::from(is_allowed);
            state = Some(if is_allowed { limit.take(at, 1) } else { at });
            let drained = i128::from(now - NOW) * i128::from(count) / i128::from(period);
            let most = u64::try_from(drained).unwrap() + burst;
            prop_assert!(allowed <= most, "{} of {}", allowed, most);
            prop_assert!(allowed + 1 >= most.min(offered), "{} of {}, {}", allowed, most, offered);
        }
    }

    #[test]
    fn windows_of_quotas_are_those_of_the_calendar(seconds in -5_000_000_000_i64..50_000_000_000) {
        let instant = Timestamp::from_second(seconds).unwrap();
        let civil = Offset::UTC.to_datetime(instant);
        let next = civil.date().first_of_month().checked_add(jiff::Span::new().months(1)).unwrap();
        let ends = Offset::UTC.to_timestamp(next.at(0, 0, 0, 0)).unwrap();
        let limit = policy("quota 1/month");
        let now = instant.as_microsecond();
        let reset = limit.standing(limit.at(None, now), now, 1).reset;
        prop_assert_eq!(now + i64::try_from(reset.as_micros()).unwrap(), ends.as_microsecond());
        for (text, length) in [("quota 1/day", DAY), ("quota 1/hour", Period::Hour.micros())] {
            let limit = policy(text);
            let reset = limit.standing(limit.at(None, now), now, 1).reset;
            prop_assert_eq!(i64::try_from(reset.as_micros()).unwrap(), length - now.rem_euclid(length));
        }
    }

    #[test]
    fn what_is_given_back_at_once_was_never_taken(limit in rates(), before in 0..20_u64, cost in 1..20_u64) {
        let empty = limit.at(None, NOW);
        let used = limit.take(empty, before);
        prop_assert_eq!(limit.settle(limit.take(used, cost), NOW, cost, 0), used);
        prop_assert_eq!(limit.settle(limit.take(used, cost), NOW, cost, cost + 3), limit.take(used, cost + 3));
    }

    #[test]
    fn giving_back_lets_nobody_have_more_than_burst_and_rate(
        limit in rates(),
        requests in proptest::collection::vec((0..3_000_000_i64, 1..8_u64, 0..8_u64, 0..3_000_000_i64), 1..60),
    ) {
        // Each request reserves, and settles for less some time later; in between others come.
        let mut events: Vec<(i64, usize, bool)> = Vec::new();
        let mut now = NOW;
        for (n, (pause, _, _, lasts)) in requests.iter().enumerate() {
            now += pause;
            events.push((now, n, false));
            events.push((now + lasts, n, true));
        }
        events.sort_by_key(|it| it.0);
        let mut state = None;
        let mut used: Vec<(i64, usize, u64)> = Vec::new();
        for (now, n, settles) in events {
            let (_, reserve, actual, _) = requests[n];
            let at = limit.at(state, now);
            state = Some(at);
            if !settles {
                if limit.allows(at, reserve) {
                    state = Some(limit.take(at, reserve));
                    used.push((now, n, reserve));
                }
            } else if let Some(it) = used.iter_mut().find(|it| it.1 == n) {
                it.2 = actual.min(reserve);
                state = Some(limit.settle(at, it.0, reserve, it.2));
            }
        }
        let accepted: Vec<(i64, u64)> =
            used.iter().filter(|it| it.2 > 0).map(|it| (it.0, it.2)).collect();
        for (n, (at, cost)) in accepted.iter().enumerate() {
            prop_assert!(fits(&limit, &accepted[..n], *at, *cost));
        }
    }
}
