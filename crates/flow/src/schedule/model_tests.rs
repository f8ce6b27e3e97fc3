use modelyard_kernel::form::Report;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const ID: &str = "01JCSEED000000000000SCHED1";

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn schedule(trigger: Trigger, misfire: Misfire) -> Schedule {
    let start = at("2026-09-01T00:00:00Z");
    let ticks = trigger.ticks().unwrap();
    Schedule {
        id: ScheduleId::read(ID).unwrap(),
        created_at: start,
        updated_at: start,
        name: "s".to_owned(),
        enabled: true,
        trigger,
        target: Target { kind: "k".to_owned(), input: raw(&Value::Null).unwrap() },
        misfire,
        overlap: Overlap::Skip,
        jitter_seconds: 0,
        next_at: ticks.next(start),
        last_at: None,
        next_tick: ticks.next(start),
        owner: "o".to_owned(),
        revision: 1,
    }
}

fn every(every_seconds: i64) -> Trigger {
    Trigger::Interval { every_seconds, anchor: at("2026-09-01T00:00:00Z") }
}

fn plan(it: &Schedule, now: &str) -> Plan {
    it.plan(&it.trigger.ticks().unwrap(), at(now))
}

fn texts(times: &[Time]) -> Vec<String> {
    times.iter().map(|it| it.to_seconds().split_off(11)).collect()
}

#[test]
fn an_interval_goes_on_from_its_anchor() {
    let ticks = every(90).ticks().unwrap();
    for (after, next) in [
        ("2026-08-01T00:00:00Z", "2026-09-01T00:00:00Z"),
        ("2026-09-01T00:00:00Z", "2026-09-01T00:01:30Z"),
        ("2026-09-01T00:01:29.999999Z", "2026-09-01T00:01:30Z"),
        ("2026-09-01T00:01:30Z", "2026-09-01T00:03:00Z"),
        ("2027-09-01T00:00:01Z", "2027-09-01T00:01:30Z"),
    ] {
        assert_eq!(ticks.next(at(after)), Some(at(next)), "{after}");
    }
    assert_eq!(ticks.next(Time::from_micros(i64::MAX)), None);
    assert_eq!(ticks.next(at("9999-12-30T22:00:00Z")), None);
}

#[test]
fn what_is_on_time_fires_whatever_the_policy_is() {
    for misfire in [Misfire::Skip, Misfire::Once, Misfire::CatchUp] {
        let it = schedule(every(3600), misfire);
        let (tick, next) = (at("2026-09-01T01:00:00Z"), Some(at("2026-09-01T02:00:00Z")));
        let expected = Plan { skip: vec![], fire: Some(tick), next };
        assert_eq!(plan(&it, "2026-09-01T01:00:00Z"), expected);
        assert_eq!(plan(&it, "2026-09-01T01:01:00Z"), expected);
        let nothing = Plan { skip: vec![], fire: None, next: Some(tick) };
        assert_eq!(plan(&it, "2026-09-01T00:59:59Z"), nothing);
    }
}

#[test]
fn misfires_are_skipped_made_up_for_once_or_caught_up_with() {
    // Nobody was there from one o'clock to five.
    let plan = |misfire, now| {
        let Plan { skip, fire, next } = plan(&schedule(every(3600), misfire), now);
        (
            texts(&skip),
            fire.map(|it| texts(&[it])[0].clone()),
            next.map(|it| texts(&[it])[0].clone()),
        )
    };
    let some = |it: &str| Some(it.to_owned());
    let late = "2026-09-01T04:10:00Z";
    let all = ["01:00:00", "02:00:00", "03:00:00", "04:00:00"].map(ToOwned::to_owned);
    assert_eq!(plan(Misfire::Skip, late), (all.to_vec(), None, some("05:00:00")));
    assert_eq!(plan(Misfire::Once, late), (all[..3].to_vec(), some("04:00:00"), some("05:00:00")));
    assert_eq!(plan(Misfire::CatchUp, late), (vec![], some("01:00:00"), some("02:00:00")));
    // At five, what is on time is the one that makes up for the others.
    let five = "2026-09-01T05:00:30Z";
    assert_eq!(plan(Misfire::Skip, five), (all.to_vec(), some("05:00:00"), some("06:00:00")));
    assert_eq!(plan(Misfire::Once, five), (all.to_vec(), some("05:00:00"), some("06:00:00")));
    assert_eq!(plan(Misfire::CatchUp, five), (vec![], some("01:00:00"), some("02:00:00")));
}

#[test]
fn catching_up_begins_with_the_newest_hundred() {
    let it = schedule(every(60), Misfire::CatchUp);
    let Plan { skip, fire, next } = plan(&it, "2026-09-01T05:02:30Z");
    // 302 ticks, of which 301 are misfires, and the history has the newest of what is left out.
    assert_eq!(fire, Some(at("2026-09-01T03:22:00Z")));
    assert_eq!(next, Some(at("2026-09-01T03:23:00Z")));
    assert_eq!(skip.len(), HISTORY);
    assert_eq!(skip.last(), Some(&at("2026-09-01T03:21:00Z")));
    let mut begun = 0;
    let mut it = it;
    while let Plan { fire: Some(_), next, .. } = plan(&it, "2026-09-01T05:02:30Z") {
        begun += 1;
        it.next_tick = next;
    }
    assert_eq!(begun, MAX_CATCH_UP + 1);
}

#[test]
fn ten_years_without_anybody_are_looked_through_at_once() {
    let minutely =
        Trigger::Cron { expression: "* * * * *".to_owned(), time_zone: "UTC".to_owned() };
    let now = "2036-09-01T00:00:00.5Z";
    for trigger in [every(1), minutely] {
        let Plan { skip, fire, next } = plan(&schedule(trigger.clone(), Misfire::Once), now);
        assert!((1..=HISTORY).contains(&skip.len()));
        assert!(fire.unwrap() > at("2036-08-31T23:58:00Z") && next > fire, "{fire:?}");
        let Plan { skip, fire, .. } = plan(&schedule(trigger, Misfire::Skip), now);
        assert!(skip.len() == HISTORY && fire.is_some());
    }
    let seldom = Trigger::Cron { expression: "0 0 29 2 *".to_owned(), time_zone: "UTC".to_owned() };
    let Plan { skip, fire, next } = plan(&schedule(seldom, Misfire::Once), now);
    assert_eq!(skip, [at("2028-02-29T00:00:00Z"), at("2032-02-29T00:00:00Z")]);
    assert_eq!(fire, Some(at("2036-02-29T00:00:00Z")));
    assert_eq!(next, Some(at("2040-02-29T00:00:00Z")));
}

#[test]
fn jitter_is_the_same_on_every_node_and_another_for_each_tick_and_schedule() {
    let (one, other) =
        (ScheduleId::read(ID).unwrap(), ScheduleId::read(&ID.replace('1', "2")).unwrap());
    let tick = at("2026-09-01T00:00:00Z");
    assert_eq!(due(one, 0, tick), tick);
    // Written down, since nodes of another version must have the same.
    assert_eq!(due(one, 60, tick).to_string(), "2026-09-01T00:00:11.653000Z");
    let mut seen = std::collections::BTreeSet::new();
    for second in 0..1000 {
        let tick = tick.after(Duration::from_secs(second));
        for id in [one, other] {
            let late = due(id, 60, tick).since(tick);
            assert!(late <= Duration::from_secs(60));
            seen.insert(late);
        }
    }
    // Spread over the minute.
    assert!(seen.len() > 1900, "{}", seen.len());
    for tenth in 0..10 {
        let from = Duration::from_secs(6 * tenth);
        let within = seen.range(from..from + Duration::from_secs(6)).count();
        assert!((100..300).contains(&within), "{within} from {from:?}");
    }
}

#[test]
fn a_tick_waits_for_its_jitter() {
    let mut it = schedule(every(3600), Misfire::Once);
    it.jitter_seconds = 600;
    let tick = at("2026-09-01T01:00:00Z");
    let due = it.due(tick);
    assert!(due > tick);
    let ticks = it.trigger.ticks().unwrap();
    let before = Time::from_micros(due.micros() - 1);
    assert_eq!(it.plan(&ticks, before).fire, None);
    assert_eq!(it.plan(&ticks, due).fire, Some(tick));
}

fn read(body: &Value) -> Result<NewSchedule, Value> {
    let report = Report::new();
    let read = NewSchedule::read(Node::body(body, &report), &["ml.train", "task.execute"]);
    match report.finish() {
        Ok(()) => Ok(read.unwrap()),
        Err(violations) => {
            assert!(read.is_none());
            Err(serde_json::to_value(violations).unwrap())
        }
    }
}

#[test]
fn a_schedule_runs_once_after_an_outage_and_never_beside_itself_unless_it_says_otherwise() {
    let NewSchedule { id, name, enabled, trigger, kind, input, misfire, overlap, jitter_seconds } =
        read(&json!({"name": " a ", "trigger": {"type": "cron", "expression": " @daily "},
        "target": {"kind": "ml.train"}, "more": 1}))
        .unwrap();
    assert_eq!((id, name.as_str(), enabled), (None, "a", true));
    assert!(matches!(trigger, NewTrigger::Cron { expression, time_zone }
        if expression == "@daily" && time_zone == "UTC"));
    assert_eq!((kind.as_str(), input), ("ml.train", json!({})));
    assert_eq!((misfire, overlap, jitter_seconds), (Misfire::Once, Overlap::Skip, 0));
}

#[test]
fn every_violation_of_a_schedule_is_told() {
    let wrong = json!({"id": "x", "name": "", "enabled": null,
        "trigger": {"type": "cron", "expression": "0 25 * * *", "time_zone": "Mars/Olympus"},
        "target": {"kind": "ml.predict"}, "misfire": "ignore", "overlap": 1, "jitter_seconds": -1});
    let violations = read(&wrong).unwrap_err();
    let places: Vec<String> = violations
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            it["loc"].as_array().unwrap()[1..]
                .iter()
                .map(|it| it.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(".")
        })
        .collect();
    assert_eq!(
        places,
        [
            "id",
            "name",
            "enabled",
            "trigger.time_zone",
            "trigger.expression",
            "target.kind",
            "misfire",
            "overlap",
            "jitter_seconds"
        ]
    );
    let messages = |it: &Value| it.as_array().unwrap()[0]["msg"].as_str().unwrap().to_owned();
    assert_eq!(violations[5]["msg"], "Input should be 'ml.train' or 'task.execute'");
    assert!(violations[4]["msg"].as_str().unwrap().starts_with("Value error, `25` is no hour"));

    let with = |trigger: Value, jitter: i64| {
        json!({"name": "a", "trigger": trigger, "target": {"kind": "ml.train"},
            "jitter_seconds": jitter})
    };
    for (trigger, jitter, message) in [
        (
            json!({"type": "interval", "every_seconds": 0}),
            0,
            "Input should be greater than or equal to 1",
        ),
        (
            json!({"type": "interval", "every_seconds": 60}),
            60,
            "Value error, The jitter of an interval is shorter than the interval",
        ),
        (
            json!({"type": "interval", "every_seconds": 60, "anchor": "soon"}),
            0,
            "Value error, `soon` is not a time since 1970 such as 2026-11-20T08:00:00Z",
        ),
        (json!({"type": "sun"}), 0, "Input should be 'cron' or 'interval'"),
        (json!({"type": "cron"}), 0, "Field required"),
        (
            json!({"type": "cron", "expression": "0 0 31 2 *"}),
            0,
            "Value error, None of these months has such a day, so it would never fire",
        ),
    ] {
        assert_eq!(messages(&read(&with(trigger, jitter)).unwrap_err()), message);
    }
}

#[test]
fn an_interval_keeps_its_anchor_when_it_is_replaced() {
    let now = at("2026-09-01T00:00:07.5Z");
    let new = |anchor| NewTrigger::Interval { every_seconds: 60, anchor };
    let anchor = |it| match it {
        Trigger::Interval { anchor, .. } => anchor,
        Trigger::Cron { .. } => panic!("an interval"),
    };
    assert_eq!(anchor(new(None).settled(None, now)), at("2026-09-01T00:00:07Z"));
    let old = every(3600);
    assert_eq!(anchor(new(None).settled(Some(&old), now)), at("2026-09-01T00:00:00Z"));
    let said = at("2026-01-01T00:00:30Z");
    assert_eq!(anchor(new(Some(said)).settled(Some(&old), now)), said);
}

#[test]
fn the_error_of_a_tick_can_be_stored() {
    assert_eq!(kept_error("a\0b"), "a\u{fffd}b");
    assert_eq!(kept_error(&"é".repeat(5000)).chars().count(), 2000);
}

proptest! {
    #[test]
    fn a_plan_leaves_no_tick_out_and_has_none_twice(
        every_seconds in 1..5000_i64, begun in 0..1000_u64, late in 0..300_000_u64,
        misfire in prop_oneof![Just(Misfire::Skip), Just(Misfire::Once), Just(Misfire::CatchUp)],
        jitter in 0..50_i64,
    ) {
        let mut it = schedule(every(every_seconds), misfire);
        it.jitter_seconds = jitter.min(every_seconds - 1);
        let ticks = it.trigger.ticks().unwrap();
        it.next_tick = ticks.next(it.created_at.after(Duration::from_secs(begun)));
        let now = it.next_tick.unwrap().after(Duration::from_secs(late));
        let mut before = it.next_tick.unwrap().micros() - 1;
        let mut fired = 0;
        // Each step goes on where the one before ended, until nothing is due.
        for _ in 0..=MAX_CATCH_UP + 100 {
            let Plan { skip, fire, next } = it.plan(&ticks, now);
            for tick in skip.iter().chain(&fire) {
                prop_assert!(tick.micros() > before && it.due(*tick) <= now);
                before = tick.micros();
            }
            fired += usize::from(fire.is_some());
            let next = next.unwrap();
            prop_assert!(next.micros() > before);
            it.next_tick = Some(next);
            if fire.is_none() {
                break;
            }
            prop_assert!(now.since(it.due(fire.unwrap())) <= GRACE || misfire != Misfire::Skip);
        }
        prop_assert!(it.due(it.next_tick.unwrap()) > now, "something is still due");
        let most = 61 + match misfire {
            Misfire::Skip => 0,
            Misfire::Once => 1,
            Misfire::CatchUp => MAX_CATCH_UP,
        };
        prop_assert!(fired <= most, "{fired} jobs at once");
        prop_assert!(fired > 0 || misfire == Misfire::Skip || late < 50);
    }
}
