//! Rate limits and quotas: how often somebody may ask.
//!
//! [`Limiter::reserve`] takes the cost of a request from every limit that counts it, or from none when one
//! of them refuses. What a request costs may be an estimate that [`Limiter::settle`] corrects.

mod counting;
mod limits;
mod memory;
pub mod model;
#[cfg(feature = "redis")]
mod redis;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use modelyard_kernel::part::Counter;
use modelyard_kernel::{Clock, Failure, Kind, Time};

pub use counting::{Count, MOST_LIMITS, Store, StoreError, Taken};
pub use limits::{Limit, Limits, LimitsError, RateLimiting, Who};
pub use memory::{ENTRIES, MemoryStore};
pub use model::{NotAPolicy, Per, Period, Policy, Standing};
#[cfg(feature = "redis")]
pub use redis::RedisStore;

/// How long a store that failed is not asked, so that requests do not wait for it one by one.
const REST: Duration = Duration::from_secs(1);
/// How often the log says so.
const TELL: Duration = Duration::from_secs(60);

/// What becomes of requests while nobody knows how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are answered.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// Why a store cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The program was built without.
    #[error(
        "this program was built without the feature `redis`, which `rate_limits.redis_url` needs"
    )]
    NotBuilt,
    /// The address is none.
    #[error("`rate_limits.redis_url` cannot be used")]
    Address(#[source] StoreError),
}

/// The store in the Redis at this address.
///
/// # Errors
/// When the address is none, or the program was built without.
pub fn open(url: &str) -> Result<Arc<dyn Store>, OpenError> {
    #[cfg(feature = "redis")]
    return RedisStore::open(url).map(|it| Arc::new(it) as _).map_err(OpenError::Address);
    #[cfg(not(feature = "redis"))]
    {
        let _not_read = url;
        Err(OpenError::NotBuilt)
    }
}

/// Decides. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    on_failure: OnFailure,
    clock: Clock,
    /// Until when the store is not asked, and when the log was told; in microseconds since 1970.
    rests_until: AtomicI64,
    told_at: AtomicI64,
    refused: Counter,
    failures: Counter,
}

/// What came of asking.
#[derive(Debug)]
pub enum Decision {
    /// It may go on.
    Allowed(Vec<Left>, Reservation),
    /// It may not, and nothing was taken.
    Refused(Vec<Left>),
    /// Nobody knows how many there were, or there is no limit: it may go on.
    Uncounted,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which of the limits.
    pub limit: usize,
    /// What is left.
    pub standing: Standing,
}

/// What was taken, to be settled when it is known what it came to. Dropped, it stays as it is.
#[derive(Debug)]
pub struct Reservation {
    limits: Arc<[Limit]>,
    /// Which of them, and whom they count.
    keys: Vec<(usize, String)>,
    at: i64,
    cost: u64,
}

impl Limiter {
    /// Decides by what the store remembers.
    pub fn new(store: Arc<dyn Store>, on_failure: OnFailure, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            store,
            on_failure,
            clock,
            rests_until: AtomicI64::new(i64::MIN),
            told_at: AtomicI64::new(i64::MIN),
            refused: Counter::new(
                "rate_limit_refusals_total",
                "Requests that were more than a rate limit or quota allows.",
            ),
            failures: Counter::new(
                "rate_limit_failures_total",
                "Requests that could not be counted, since the store of rate limits failed.",
            ),
        }))
    }

    /// What it counts for the operator.
    pub fn counters(&self) -> [Counter; 2] {
        [self.0.refused.clone(), self.0.failures.clone()]
    }

    /// Takes `cost` of all limits that count who asks, when all of them allow it.
    ///
    /// # Errors
    /// `rate_limits_unavailable` when that cannot be decided, and requests are refused then.
    pub async fn reserve(
        &self,
        limits: &Arc<[Limit]>,
        who: &Who<'_>,
        cost: u64,
    ) -> Result<Decision, Failure> {
        let keys: Vec<(usize, String)> =
            limits.iter().enumerate().filter_map(|(n, limit)| Some((n, limit.key(who)?))).collect();
        if keys.is_empty() {
            return Ok(Decision::Uncounted);
        }
        let now = self.0.clock.now();
        if now.micros() < self.0.rests_until.load(Ordering::Relaxed) {
            return self.uncounted();
        }
        let taken = match self.0.store.take(&counts(limits, &keys), cost).await {
            Ok(taken) => taken,
            Err(error) => {
                self.rest(&error);
                return self.uncounted();
            }
        };
        let Taken { at, allowed, states } = taken;
        // Of what is allowed, the standing is that of the next one.
        let next = if allowed { 1 } else { cost };
        let left = keys.iter().zip(states).map(|((limit, _), state)| {
            let standing = limits[*limit].policy.standing(state, at, next);
            Left { limit: *limit, standing }
        });
        let left = left.collect();
        if allowed {
            let limits = Arc::clone(limits);
            return Ok(Decision::Allowed(left, Reservation { limits, keys, at, cost }));
        }
        self.0.refused.increment();
        Ok(Decision::Refused(left))
    }

    /// Corrects what was reserved to what it came to: see [`Policy::settle`]. What cannot be corrected stays
    /// as it was reserved.
    pub async fn settle(&self, reservation: Reservation, actual: u64) {
        let Reservation { limits, keys, at, cost } = reservation;
        if actual == cost {
            return;
        }
        let counts = counts(&limits, &keys);
        if let Err(error) = self.0.store.settle(&counts, at, cost, actual).await {
            self.0.failures.increment();
            self.rest(&error);
        }
    }

    fn uncounted(&self) -> Result<Decision, Failure> {
        self.0.failures.increment();
        match self.0.on_failure {
            OnFailure::Open => Ok(Decision::Uncounted),
            OnFailure::Closed => Err(Failure::new(
                Kind::Unavailable,
                "rate_limits_unavailable",
                "requests cannot be counted at the moment, so none is answered; try again in a \
                 moment",
            )),
        }
    }

    /// Lets the store rest, and tells the log now and then.
    fn rest(&self, error: &StoreError) {
        let now = self.0.clock.now();
        self.0.rests_until.store(now.after(REST).micros(), Ordering::Relaxed);
        let told = self.0.told_at.load(Ordering::Relaxed);
        let silent = told != i64::MIN && now.since(Time::from_micros(told)) < TELL;
        let ours = !silent
            && self
                .0
                .told_at
                .compare_exchange(told, now.micros(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if ours {
            let then = match self.0.on_failure {
                OnFailure::Open => "are answered uncounted",
                OnFailure::Closed => "are refused",
            };
            tracing::error!(%error, "the store of rate limits fails: requests {then}");
        }
    }
}

fn counts<'a>(limits: &'a [Limit], keys: &'a [(usize, String)]) -> Vec<Count<'a>> {
    keys.iter().map(|(n, key)| Count { key, policy: &limits[*n].policy }).collect()
}
