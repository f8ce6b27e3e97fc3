//! What a limit says, and what is left of it: whole numbers and no clock.
//!
//! Rates follow the generic cell rate algorithm (ATM Forum, *Traffic Management Specification* 4.0,
//! §4.4, and ITU-T I.371, annex A) in its form as a leaky bucket. A request pours its weight into the
//! bucket, which drains evenly; what would make it overflow is refused. Weights and drain are whole
//! numbers whose ratio is exactly the rate, so that nothing is lost to rounding, however long it runs.
//!
//! Quotas count within windows of the calendar, in UTC.
//!
//! The script in `script.lua` does the same within Redis, whose numbers are exact up to 2⁵³: hence
//! microseconds, and [`CEILING`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No bucket holds more, whatever debts there are: the largest whole number that Redis counts exactly.
pub const CEILING: u64 = (1 << 53) - 1;
/// The largest bucket, so that debts find room.
const LARGEST: u64 = 1 << 52;
/// The largest number that a limit names.
const MOST: u64 = 1_000_000_000;
/// A clock that goes back by this much, in microseconds, is a small correction; by more, it was set.
pub const SMALL_STEP: i64 = 1_000_000;

const DAY: i64 = 86_400_000_000;

/// The period of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month of the calendar, for quotas.
    Month,
}

impl Period {
    const ALL: [(Period, &'static str); 5] = [
        (Period::Second, "second"),
        (Period::Minute, "minute"),
        (Period::Hour, "hour"),
        (Period::Day, "day"),
        (Period::Month, "month"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    /// Its length in microseconds; a month is its longest.
    pub fn micros(self) -> i64 {
        match self {
            Period::Second => 1_000_000,
            Period::Minute => 60_000_000,
            Period::Hour => 3_600_000_000,
            Period::Day => DAY,
            Period::Month => 31 * DAY,
        }
    }

    /// Which window of the calendar, counted from some first one, an instant is in.
    fn window(self, now: i64) -> i64 {
        match self {
            Period::Month => month(now.div_euclid(DAY)),
            other => now.div_euclid(other.micros()),
        }
    }

    /// When a window begins.
    fn begins(self, window: i64) -> i64 {
        match self {
            Period::Month => first_of(window).saturating_mul(DAY),
            other => window.saturating_mul(other.micros()),
        }
    }
}

/// Which month a day is in, days counted from 1970-01-01 and months from March of the year 0.
///
/// After Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is the last.
fn month(day: i64) -> i64 {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    (era * 400 + year) * 12 + (5 * of_year + 2) / 153
}

/// The first day of a month, both counted as in [`month`].
fn first_of(month: i64) -> i64 {
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12));
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + year * 365 + year / 4 - year / 100 + of_year - 719_468
}

/// Whose requests a limit counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Per {
    /// Whoever asks: a user or a key; an address when nobody is known.
    #[default]
    Caller,
    /// A user. Requests of others are not counted.
    User,
    /// A key. Requests of others are not counted.
    Key,
    /// A tenant.
    Tenant,
    /// The address of the client.
    Address,
}

impl Per {
    const ALL: [(Per, &'static str); 5] = [
        (Per::Caller, "caller"),
        (Per::User, "user"),
        (Per::Key, "key"),
        (Per::Tenant, "tenant"),
        (Per::Address, "address"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    /// What a name stands for.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|it| it.1 == name).map(|it| it.0)
    }
}

fn name_of<T: Copy + PartialEq>(all: &[(T, &'static str)], it: T) -> &'static str {
    all.iter().find(|other| other.0 == it).map_or("", |found| found.1)
}

/// A limit: `100/minute`, `100/minute burst 20`, `quota 5000/month`, each perhaps with `per tenant`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    count: u64,
    period: Period,
    per: Option<Per>,
    rule: Rule,
    text: Box<str>,
}

/// How a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A bucket.
    Rate {
        /// How many requests it takes at once.
        burst: u64,
        /// What one of them weighs.
        weight: u64,
        /// What drains in a microsecond.
        drain: u64,
    },
    /// A number in each window.
    Quota,
}

/// A text that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}; a limit is written as `100/minute`, `100/minute burst 20` or `quota 5000/month`")]
pub struct NotAPolicy {
    why: &'static str,
}

impl FromStr for Policy {
    type Err = NotAPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPolicy> {
        let no = |why| NotAPolicy { why };
        let mut words = text.split(' ');
        let mut next = || words.next().filter(|it| !it.is_empty());
        let mut word = next();
        let is_quota = word == Some("quota");
        if is_quota {
            word = next();
        }
        let (count, period) =
            word.and_then(|it| it.split_once('/')).ok_or(no("there is no number with a period"))?;
        let count = number(count).ok_or(no("its number is not one from 1 to 1000000000"))?;
        let period = Period::ALL.iter().find(|it| it.1 == period).map(|it| it.0);
        let period =
            period.ok_or(no("its period is not `second`, `minute`, `hour`, `day` or `month`"))?;
        let (mut burst, mut per) = (None, None);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            match word {
                "burst" if burst.is_none() && per.is_none() => {
                    burst = Some(number(value).ok_or(no("its burst is not a number from 1"))?);
                }
                "per" if per.is_none() => {
                    let known = "it is per `caller`, `user`, `key`, `tenant` or `address`";
                    per = Some(Per::named(value).ok_or(no(known))?);
                }
                _ => return Err(no("only `burst` and then `per` may follow")),
            }
        }
        let rule = match is_quota {
            true if burst.is_some() => return Err(no("a quota has no burst")),
            true if matches!(period, Period::Second | Period::Minute) => {
                return Err(no("a quota is for an hour, a day or a month"));
            }
            true => Rule::Quota,
            false if period == Period::Month => {
                return Err(no("only a quota is for a month"));
            }
            false => rate(count, period, burst.unwrap_or(count))
                .ok_or(no("it is too fine to count exactly, take round numbers"))?,
        };
        Ok(Self { count, period, per, rule, text: text.into() })
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|it| it.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|it| plain && (1..=MOST).contains(it))
}

/// The bucket of a rate, when it can be counted exactly.
fn rate(count: u64, period: Period, burst: u64) -> Option<Rule> {
    let period = period.micros().unsigned_abs();
    let common = common(count, period);
    let (weight, drain) = (period / common, count / common);
    let size = burst.checked_mul(weight)?;
    (size <= LARGEST).then_some(Rule::Rate { burst, weight, drain })
}

/// The greatest common divisor.
fn common(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common(other, one % other) }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What has been used. For a rate: the level of the bucket and when it was that. For a quota: the
/// number and the window that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Microseconds since 1970, or the number of a window.
    pub at: i64,
    /// What is used.
    pub used: u64,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What may still come at once.
    pub remaining: u64,
    /// How long until everything is there again.
    pub reset: Duration,
    /// How long until what was asked for would be allowed; nothing when it never would be.
    pub retry: Option<Duration>,
}

impl Policy {
    /// How many are allowed in a period.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The period.
    pub fn period(&self) -> Period {
        self.period
    }

    /// Whose requests it counts together, when it says so.
    pub fn per(&self) -> Option<Per> {
        self.per
    }

    /// How it counts.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The same for a quota, whatever else the text was.
    ///
    /// # Errors
    /// When it is no quota.
    pub fn quota(text: &str) -> Result<Self, NotAPolicy> {
        match text.starts_with("quota ") {
            true => text.parse(),
            false => format!("quota {text}").parse(),
        }
    }

    /// What is used by now. A clock that was set back has the time since drain nothing.
    pub fn at(&self, state: Option<State>, now: i64) -> State {
        match (self.rule, state) {
            (Rule::Rate { .. }, None) => State { at: now, used: 0 },
            (Rule::Rate { drain, .. }, Some(State { at, used })) if now >= at => {
                let drained = now.abs_diff(at).saturating_mul(drain);
                State { at: now, used: used.saturating_sub(drained) }
            }
            (Rule::Rate { .. }, Some(State { at, used })) => {
                State { at: if at - now <= SMALL_STEP { at } else { now }, used }
            }
            (Rule::Quota, state) => {
                let window = self.period.window(now);
                match state {
                    Some(it) if it.at == window || it.at - 1 == window => it,
                    _ => State { at: window, used: 0 },
                }
            }
        }
    }

    /// Whether so much more may be used. `state` is that of now, as everywhere below.
    pub fn allows(&self, state: State, cost: u64) -> bool {
        state.used.saturating_add(self.weigh(cost)) <= self.size()
    }

    /// With so much more used.
    #[must_use]
    pub fn take(&self, state: State, cost: u64) -> State {
        State { used: state.used.saturating_add(self.weigh(cost)).min(CEILING), ..state }
    }

    /// Corrects what was taken at `taken_at` to what it came to. What is too much is given back, but for
    /// what has drained since then, which it may have kept from nobody; what is too little is taken
    /// now, also beyond the limit: a debt. A quota whose window is over stays as it is.
    #[must_use]
    pub fn settle(&self, state: State, taken_at: i64, taken: u64, actual: u64) -> State {
        let drained = match self.rule {
            Rule::Quota if self.period.window(taken_at) != state.at => return state,
            Rule::Quota => 0,
            Rule::Rate { drain, .. } => {
                u64::try_from(state.at - taken_at).unwrap_or(0).saturating_mul(drain)
            }
        };
        if actual >= taken {
            return self.take(state, actual - taken);
        }
        let back = self.weigh(taken - actual).saturating_sub(drained);
        State { used: state.used.saturating_sub(back), ..state }
    }

    /// Which part of it is used, in millionths; 0 only when nothing is.
    pub fn share(&self, state: State) -> u64 {
        let parts = u128::from(state.used) * 1_000_000;
        u64::try_from(parts.div_ceil(u128::from(self.size()))).unwrap_or(u64::MAX)
    }

    /// What is left, and when somebody who asked for `cost` may try again.
    pub fn standing(&self, state: State, now: i64, cost: u64) -> Standing {
        let (size, used) = (self.size(), state.used);
        let over = used.saturating_add(self.weigh(cost)).saturating_sub(size);
        let is_possible = self.weigh(cost) <= size;
        match self.rule {
            Rule::Rate { weight, drain, .. } => Standing {
                remaining: size.saturating_sub(used) / weight,
                reset: Duration::from_micros(used.div_ceil(drain)),
                retry: is_possible.then(|| Duration::from_micros(over.div_ceil(drain))),
            },
            Rule::Quota => {
                let ends = self.period.begins(state.at + 1);
                let reset = Duration::from_micros(u64::try_from(ends - now).unwrap_or(0));
                let retry = if over == 0 { Duration::ZERO } else { reset };
                Standing {
                    remaining: size.saturating_sub(used),
                    reset,
                    retry: is_possible.then_some(retry),
                }
            }
        }
    }

    /// What may be used at most.
    fn size(&self) -> u64 {
        match self.rule {
            Rule::Rate { burst, weight, .. } => burst * weight,
            Rule::Quota => self.count,
        }
    }

    fn weigh(&self, cost: u64) -> u64 {
        match self.rule {
            Rule::Rate { weight, .. } => cost.saturating_mul(weight),
            Rule::Quota => cost,
        }
    }
}
