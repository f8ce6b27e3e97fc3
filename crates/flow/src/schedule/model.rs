//! What a schedule is, which of its ticks are due, and what becomes of them. No I/O in this file.
//!
//! A *tick* is an instant that the trigger names. It is begun at its *due* time, which is the tick
//! and its share of the jitter. Ticks of one schedule are begun one after the other.

use std::time::Duration;

use jiff::Timestamp;
use modelyard_kernel::db::{Error, FromRow, Result as DbResult, Row, storable};
use modelyard_kernel::form::{Bounds, Node, Object, shorten};
use modelyard_kernel::{Time, Ulid, columns, entity_id, words};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::cron::{Cron, CronError};

/// A tick that could not be begun within this time of its due time is a misfire. Less than a minute
/// late is on time: another node looks for what a dead one left every half minute.
pub const GRACE: Duration = Duration::from_secs(60);

/// How many misfires are made up for at most by `catch_up`: the newest.
pub const MAX_CATCH_UP: usize = 100;

/// How many ticks of a schedule its history has: the newest.
pub const HISTORY: usize = 100;

const MAX_NAME: usize = 200;
const MAX_EVERY: i64 = 366 * 24 * 60 * 60;
const MAX_JITTER: i64 = 24 * 60 * 60;

entity_id!(
    /// The id of a schedule.
    ScheduleId
);

words! {
    /// What becomes of ticks that nobody was there to begin.
    Misfire {
        /// Nothing.
        Skip = "skip",
        /// One job makes up for all of them.
        Once = "once",
        /// Each gets its job, one after the other, of at most the newest hundred.
        CatchUp = "catch_up",
    }
}

words! {
    /// What becomes of a tick while a job of the schedule has not ended.
    Overlap {
        /// Nothing.
        Skip = "skip",
        /// Its job waits for the other, unless one waits already.
        Queue = "queue",
        /// Its job is done beside the other.
        Allow = "allow",
    }
}

words! {
    /// What became of a tick.
    TickOutcome {
        /// A job was begun.
        Fired = "fired",
        /// An earlier job of the schedule had not ended, or one waits already.
        SkippedOverlap = "skipped_overlap",
        /// Nobody was there in time, and the schedule does not make up for it.
        SkippedMisfire = "skipped_misfire",
        /// No job could be begun.
        Failed = "failed",
    }
}

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Trigger {
    /// At the times of a cron expression.
    Cron {
        /// Minute, hour, day of month, month, day of week.
        #[schema(example = "0 6 * * MON-FRI")]
        expression: String,
        /// Whose clocks are meant.
        #[schema(example = "Europe/Berlin")]
        time_zone: String,
    },
    /// At the anchor, and every so many seconds after it.
    Interval {
        /// Seconds from one to the next.
        #[schema(minimum = 1, example = 3600)]
        every_seconds: i64,
        /// One of its times.
        #[schema(value_type = String, format = DateTime)]
        anchor: Time,
    },
}

impl Trigger {
    /// The same, ready to be asked for times.
    ///
    /// # Errors
    /// When there is no such expression or time zone.
    pub fn ticks(&self) -> Result<Ticks, CronError> {
        Ok(match self {
            Trigger::Cron { expression, time_zone } => {
                Ticks::Cron(Box::new(Cron::read(expression, time_zone)?))
            }
            Trigger::Interval { every_seconds, anchor } => {
                Ticks::Interval { every: every_seconds.saturating_mul(1_000_000), anchor: *anchor }
            }
        })
    }
}

/// A trigger that was read.
#[derive(Clone, Debug)]
pub enum Ticks {
    /// Of a cron expression.
    Cron(Box<Cron>),
    /// Of an interval, in microseconds.
    Interval {
        /// From one to the next.
        every: i64,
        /// One of them, and none is before it.
        anchor: Time,
    },
}

impl Ticks {
    /// The first after `after`.
    pub fn next(&self, after: Time) -> Option<Time> {
        match self {
            Ticks::Cron(cron) => cron.next(after),
            Ticks::Interval { every, anchor } => {
                if after < *anchor {
                    return Some(*anchor);
                }
                let passed = after.micros().checked_sub(anchor.micros())?;
                let passed = passed.div_euclid((*every).max(1)).checked_add(1)?;
                let next = passed.checked_mul(*every)?.checked_add(anchor.micros())?;
                (next <= Timestamp::MAX.as_microsecond()).then(|| Time::from_micros(next))
            }
        }
    }

    /// `time` as clocks show it where the trigger is at home.
    pub fn local(&self, time: Time) -> String {
        match self {
            Ticks::Cron(cron) => cron.local(time),
            Ticks::Interval { .. } => time.to_string(),
        }
    }

    /// All after `after`.
    pub(super) fn following(&self, after: Time) -> impl Iterator<Item = Time> + '_ {
        std::iter::successors(self.next(after), |it| self.next(*it))
    }
}

/// What a schedule begins.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Target {
    /// The kind of job.
    #[schema(example = "task.execute")]
    pub kind: String,
    /// What its job gets.
    #[schema(value_type = Object, example = json!({"task_id": "01M7W2VW5SZCEB0G592J0SM0XC"}))]
    pub input: Box<RawValue>,
}

/// A schedule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Schedule {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2VW5SZCEB0G592J0SM0XC")]
    pub id: ScheduleId,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Time,
    /// What it is called, and its jobs.
    #[schema(example = "Train every morning")]
    pub name: String,
    /// False while it is paused.
    pub enabled: bool,
    /// When it fires.
    pub trigger: Trigger,
    /// What it begins.
    pub target: Target,
    /// What becomes of ticks that nobody was there to begin.
    pub misfire: Misfire,
    /// What becomes of a tick while an earlier job has not ended.
    pub overlap: Overlap,
    /// Up to how many seconds after its time a job is begun, so that not all begin at once.
    pub jitter_seconds: i64,
    /// When it begins its next job, jitter included; null when it is paused or there is no more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Time>,
    /// When it last began a job.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<Time>,
    /// The tick that is next, of which `next_at` is the due time.
    #[serde(skip)]
    pub next_tick: Option<Time>,
    /// In whose name its jobs are.
    #[serde(skip)]
    pub owner: String,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
}

impl Schedule {
    /// The columns of a row, in the order that `FromRow` reads.
    pub const COLUMNS: &'static str = "id, created_at, updated_at, name, enabled, expression, \
        time_zone, every_seconds, anchor, kind, input, misfire, overlap, jitter_seconds, next_at, \
        last_at, next_tick, owner, revision";

    /// Its entity tag: of its revision and, behind a `~`, of its times, which change by themselves.
    pub fn etag(&self) -> String {
        let times = [self.next_at, self.last_at].map(|it| it.map_or(0, Time::micros));
        format!("{}~{}-{}\"", self.revision_tag().trim_end_matches('"'), times[0], times[1])
    }

    /// The entity tag of what people say of it: a tick between reading and writing is no conflict.
    /// The time is in it because an id may be used again once its entity is gone.
    pub(super) fn revision_tag(&self) -> String {
        format!("\"{}-{}-{}\"", self.id, self.created_at.micros(), self.revision)
    }

    /// Whether something is to be done about it.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.enabled && self.next_at.is_some_and(|it| it <= now)
    }

    /// When `tick` is to be begun.
    pub(super) fn due(&self, tick: Time) -> Time {
        due(self.id, self.jitter_seconds, tick)
    }

    /// What is to be done about it at `now`, in one transaction.
    pub(super) fn plan(&self, ticks: &Ticks, now: Time) -> Plan {
        let Some(from) = self.next_tick else { return Plan::default() };
        let mut due = self.due_ticks(ticks, from, now);
        let missed = |it: &Time| now.since(self.due(*it)) > GRACE;
        let on_time = due.iter().position(|it| !missed(it)).unwrap_or(due.len());
        let begin = match self.misfire {
            Misfire::Skip => on_time,
            // What is on time makes up for them as well.
            Misfire::Once => on_time.min(due.len().saturating_sub(1)),
            Misfire::CatchUp => on_time.saturating_sub(MAX_CATCH_UP),
        };
        let fire = due.get(begin).copied();
        due.truncate(begin);
        let last = fire.or_else(|| due.last().copied());
        let next = last.map_or(Some(from), |it| ticks.next(it));
        due.drain(..due.len().saturating_sub(HISTORY));
        Plan { skip: due, fire, next }
    }

    /// The ticks that are due; of very many the newest, and at least as many as somebody looks at.
    ///
    /// After a year without anybody an interval of a second has millions. So they are looked for
    /// from a while ago, and from longer ago until there are enough.
    fn due_ticks(&self, ticks: &Ticks, from: Time, now: Time) -> Vec<Time> {
        const ENOUGH: usize = HISTORY + MAX_CATCH_UP;
        let mut ago = i64::try_from(GRACE.as_micros()).unwrap_or(i64::MAX);
        loop {
            let begin = Time::from_micros(now.micros().saturating_sub(ago));
            let is_all = begin <= from;
            let first = is_all.then_some(from);
            let others = ticks.following(begin.max(from));
            let due = first.into_iter().chain(others).take_while(|it| self.due(*it) <= now);
            let due: Vec<Time> = due.collect();
            if is_all || due.len() >= ENOUGH {
                return due;
            }
            ago = ago.saturating_mul(4);
        }
    }
}

impl FromRow for Schedule {
    fn from_row(mut row: Row) -> DbResult<Self> {
        let id = row.take("id")?;
        let created_at = row.take("created_at")?;
        let updated_at = row.take("updated_at")?;
        let name = row.take("name")?;
        let enabled = row.take("enabled")?;
        let cron: (Option<String>, Option<String>) =
            (row.take("expression")?, row.take("time_zone")?);
        let interval: (Option<i64>, Option<Time>) =
            (row.take("every_seconds")?, row.take("anchor")?);
        let trigger = match (cron, interval) {
            ((Some(expression), Some(time_zone)), _) => Trigger::Cron { expression, time_zone },
            (_, (Some(every_seconds), Some(anchor))) => Trigger::Interval { every_seconds, anchor },
            _ => return Err(Error::Column("expression")),
        };
        Ok(Self {
            id,
            created_at,
            updated_at,
            name,
            enabled,
            trigger,
            target: Target { kind: row.take("kind")?, input: row.take("input")? },
            misfire: row.take("misfire")?,
            overlap: row.take("overlap")?,
            jitter_seconds: row.take("jitter_seconds")?,
            next_at: row.take("next_at")?,
            last_at: row.take("last_at")?,
            next_tick: row.take("next_tick")?,
            owner: row.take("owner")?,
            revision: row.take("revision")?,
        })
    }
}

/// What is to be done about a schedule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Ticks that nothing comes of.
    pub(super) skip: Vec<Time>,
    /// The tick after them that a job is begun for. There may be more that are due after it.
    pub(super) fire: Option<Time>,
    /// The tick after all of these.
    pub(super) next: Option<Time>,
}

/// When a tick is to be begun. Its share of the jitter is always the same, so that nodes agree, and
/// another one for each schedule and tick.
pub(super) fn due(id: ScheduleId, jitter_seconds: i64, tick: Time) -> Time {
    let Ok(seconds @ 1..) = u64::try_from(jitter_seconds) else { return tick };
    // FNV-1a, and what SplitMix64 does at its end, since Rust's own hash is not promised to stay.
    let bytes = id.to_string().into_bytes().into_iter().chain(tick.micros().to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let hash = hash ^ (hash >> 31);
    tick.after(Duration::from_millis(hash % (seconds * 1000 + 1)))
}

/// What became of a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Run {
    /// The time that the trigger named, or when somebody asked.
    #[schema(value_type = String, format = DateTime)]
    pub tick_at: Time,
    /// When this was decided.
    #[schema(value_type = String, format = DateTime)]
    pub fired_at: Time,
    /// What became of it.
    pub outcome: TickOutcome,
    /// Whether somebody asked for it with `$run-now`.
    pub manual: bool,
    /// The job that was begun, or that waits already.
    #[schema(value_type = Option<String>, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    pub job_id: Option<Ulid>,
    /// Why none was.
    pub error: Option<String>,
}

columns!(Run: tick_at, fired_at, outcome, manual, job_id, error);

/// A time that is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Upcoming {
    /// The instant, without jitter.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// What clocks show then in the schedule's time zone.
    #[schema(example = "2026-11-23T06:00:00+01:00")]
    pub local: String,
}

/// The answer to a request for a job now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Begun {
    /// The job's id.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    pub job_id: Ulid,
    /// What was begun.
    pub message: String,
}

/// When a schedule is to fire, as a client says it.
#[derive(Clone, Debug)]
pub enum NewTrigger {
    /// At the times of a cron expression.
    Cron {
        /// Minute, hour, day of month, month, day of week.
        expression: String,
        /// Whose clocks are meant.
        time_zone: String,
    },
    /// Every so many seconds.
    Interval {
        /// Seconds from one to the next.
        every_seconds: i64,
        /// One of its times; `None`: not said.
        anchor: Option<Time>,
    },
}

impl NewTrigger {
    /// What is stored. An interval without an anchor keeps the one it `had`, or begins `now`.
    pub(super) fn settled(self, had: Option<&Trigger>, now: Time) -> Trigger {
        match self {
            NewTrigger::Cron { expression, time_zone } => Trigger::Cron { expression, time_zone },
            NewTrigger::Interval { every_seconds, anchor } => {
                let had = match had {
                    Some(Trigger::Interval { anchor, .. }) => Some(*anchor),
                    _ => None,
                };
                let whole = Time::from_micros(now.micros() - now.micros().rem_euclid(1_000_000));
                Trigger::Interval { every_seconds, anchor: anchor.or(had).unwrap_or(whole) }
            }
        }
    }

    fn read(node: &Node<'_>) -> Option<Self> {
        let object = node.object()?;
        match object.required("type").and_then(|it| it.one_of(&["cron", "interval"]))? {
            "cron" => Self::read_cron(&object),
            _ => {
                let every = object.required("every_seconds");
                let bounds = Bounds::none().at_least(1).at_most(MAX_EVERY);
                let every = every.and_then(|it| it.int_within(&bounds));
                let anchor = match object.optional("anchor") {
                    Some(it) => read_anchor(&it).map(Some),
                    None => Some(None),
                };
                Some(NewTrigger::Interval { every_seconds: every?, anchor: anchor? })
            }
        }
    }

    fn read_cron(object: &Object<'_>) -> Option<Self> {
        let expression = object.required("expression");
        let text = expression.as_ref().and_then(Node::str);
        let zone = object.optional("time_zone");
        let zone_text = zone.as_ref().map_or(Some("UTC"), Node::str);
        let (text, zone_text) = (text?.trim(), zone_text?);
        // Each is complained of in its own place.
        if let (Err(refused), Some(zone)) = (Cron::read("* * * * *", zone_text), &zone) {
            zone.fail_rule(refused.to_string());
        }
        match (Cron::read(text, "UTC"), Cron::read(text, zone_text)) {
            (Ok(_), Ok(_)) => Some(NewTrigger::Cron {
                expression: text.to_owned(),
                time_zone: zone_text.to_owned(),
            }),
            (Ok(_), Err(_)) => None,
            (Err(refused), _) => {
                expression?.fail_rule(refused.to_string());
                None
            }
        }
    }
}

fn read_anchor(node: &Node<'_>) -> Option<Time> {
    let text = node.str()?;
    let anchor = text.parse().ok().filter(|it: &Time| it.micros() >= 0);
    if anchor.is_none() {
        let shown = shorten(text);
        node.fail_rule(format!("`{shown}` is not a time since 1970 such as 2026-11-20T08:00:00Z"));
    }
    anchor
}

/// A schedule to be stored.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Its id, when the client chose it.
    pub id: Option<ScheduleId>,
    /// What it is called.
    pub name: String,
    /// False to begin with a paused one.
    pub enabled: bool,
    /// When it is to fire.
    pub trigger: NewTrigger,
    /// The kind of job that it begins.
    pub kind: String,
    /// What the job gets.
    pub input: Value,
    /// What becomes of ticks that nobody was there to begin.
    pub misfire: Misfire,
    /// What becomes of a tick while an earlier job has not ended.
    pub overlap: Overlap,
    /// Up to how many seconds after its time a job is begun.
    pub jitter_seconds: i64,
}

impl NewSchedule {
    /// Reads a request's body. `kinds` are those that can be scheduled.
    pub fn read(node: Node<'_>, kinds: &[&str]) -> Option<Self> {
        let object = node.object()?;
        let id = match object.optional("id") {
            Some(it) => it.ulid().and_then(|it| Ulid::read(&it)).map(|it| Some(ScheduleId(it))),
            None => Some(None),
        };
        let name = object.required("name").and_then(|it| read_name(&it));
        let enabled = object.get("enabled").map_or(Some(true), |it| it.bool());
        let trigger = object.required("trigger").and_then(|it| NewTrigger::read(&it));
        let target = object.required("target").and_then(|it| read_target(&it, kinds));
        let misfire = object
            .get("misfire")
            .map_or(Some(Misfire::Once), |it| it.one_of(Misfire::NAMES).and_then(Misfire::read));
        let overlap = object
            .get("overlap")
            .map_or(Some(Overlap::Skip), |it| it.one_of(Overlap::NAMES).and_then(Overlap::read));
        let jitter = object
            .get("jitter_seconds")
            .map_or(Some(0), |it| it.int_within(&Bounds::none().at_least(0).at_most(MAX_JITTER)));
        if let (Some(NewTrigger::Interval { every_seconds, .. }), Some(jitter)) = (&trigger, jitter)
            && jitter >= *every_seconds
            && jitter > 0
        {
            let jitter = object.get("jitter_seconds")?;
            jitter.fail_rule("The jitter of an interval is shorter than the interval");
            return None;
        }
        let (kind, input) = target?;
        Some(Self {
            id: id?,
            name: name?,
            enabled: enabled?,
            trigger: trigger?,
            kind,
            input,
            misfire: misfire?,
            overlap: overlap?,
            jitter_seconds: jitter?,
        })
    }
}

fn read_name(node: &Node<'_>) -> Option<String> {
    let name = node.str()?.trim();
    let length = name.chars().count();
    // PostgreSQL's text holds no zero characters, and a log no line breaks.
    if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) {
        node.fail_rule(format!("A name is one line of 1 to {MAX_NAME} characters"));
        return None;
    }
    Some(name.to_owned())
}

fn read_target(node: &Node<'_>, kinds: &[&str]) -> Option<(String, Value)> {
    let object = node.object()?;
    let kind = object.required("kind")?;
    if kinds.is_empty() {
        kind.fail_rule("This service has nothing that can be scheduled");
        return None;
    }
    let kind = kind.one_of(kinds)?;
    let input = object
        .optional("input")
        .map_or_else(|| Value::Object(<_>::default()), |it| it.value().clone());
    Some((kind.to_owned(), input))
}

/// The text of a failure as it is kept: a history is no log.
pub(super) fn kept_error(text: &str) -> String {
    const MAX_ERROR: usize = 2000;
    storable(text).chars().take(MAX_ERROR).collect()
}

/// Input as it is stored.
pub(super) fn raw(input: &Value) -> serde_json::Result<Box<RawValue>> {
    to_raw_value(input)
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
