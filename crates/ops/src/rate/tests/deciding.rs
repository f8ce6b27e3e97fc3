//! What becomes of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use modelyard_kernel::{Clock, Kind, Time};
use parking_lot::Mutex;

use super::super::{
    Count, Decision, Limiter, Limits, LimitsError, MemoryStore, OnFailure, Per, RateLimiting,
    Store, StoreError, Taken, Who,
};
use super::NOW;

fn limiter() -> (Limiter, Clock) {
    let clock = Clock::fixed(Time::from_micros(NOW));
    let store = Arc::new(MemoryStore::new(clock.clone(), 1000));
    (Limiter::new(store, OnFailure::Open, clock.clone()), clock)
}

const ADA: Who<'_> =
    Who { subject: Some("user:ada"), is_user: true, tenant: Some("one"), address: None };

/// How often one more is allowed, at most a hundred times.
async fn room(limiter: &Limiter, limits: &Limits, endpoint: Option<&str>, who: Who<'_>) -> usize {
    for n in 0..100 {
        let decision = limiter.reserve(limits.of(endpoint), &who, 1).await.unwrap();
        if matches!(decision, Decision::Refused(_)) {
            return n;
        }
    }
    100
}

#[tokio::test]
async fn an_endpoint_has_its_own_limits_instead_of_the_default_ones() {
    let (limiter, _) = limiter();
    let limits = RateLimiting::new(["5/minute"]).endpoint("/train", ["2/minute", "9/day"]);
    let limits = limits.read("s").unwrap();
    assert_eq!(room(&limiter, &limits, Some("/train"), ADA).await, 2);
    assert_eq!(room(&limiter, &limits, Some("/other"), ADA).await, 5);
    assert_eq!(room(&limiter, &limits, None, ADA).await, 0);
    let other = RateLimiting::new(["5/minute"]).read("other").unwrap();
    assert_eq!(room(&limiter, &other, None, ADA).await, 5, "each service counts for itself");
}

#[tokio::test]
async fn a_quota_is_of_everything_together() {
    let (limiter, _) = limiter();
    let limits = RateLimiting::new(["5/minute"]).endpoint("/train", ["2/minute"]).quota("6/month");
    let limits = limits.read("s").unwrap();
    assert_eq!(room(&limiter, &limits, None, ADA).await, 5);
    assert_eq!(room(&limiter, &limits, Some("/train"), ADA).await, 1);
    assert_eq!(limiter.counters()[0].get(), 2);
}

#[tokio::test]
async fn a_limit_counts_by_what_it_says() {
    let key = |name: &'static str| Who {
        subject: Some(name),
        is_user: false,
        tenant: Some("one"),
        address: Some(IpAddr::from([192, 0, 2, 1])),
    };
    let nobody = |address: &str| Who { address: Some(address.parse().unwrap()), ..Who::default() };
    for (limit, expected) in [
        // Ada, two keys, and nobody from two addresses of one network.
        ("2/minute", [2, 2, 2, 2, 0]),
        ("2/minute per user", [2, 100, 100, 100, 100]),
        ("2/minute per key", [100, 2, 2, 100, 100]),
        ("2/minute per tenant", [2, 0, 0, 2, 0]),
        ("2/minute per address", [2, 2, 0, 2, 0]),
    ] {
        let (limiter, _) = limiter();
        let limits = RateLimiting::new([limit]).read("s").unwrap();
        let mut found = Vec::new();
        for who in [ADA, key("key:1"), key("key:2"), nobody("2001:db8::1"), nobody("2001:db8::2")] {
            found.push(room(&limiter, &limits, None, who).await);
        }
        assert_eq!(found, expected, "{limit}");
    }
    let (limiter, _) = limiter();
    let limits = RateLimiting::new(["2/minute"]).per(Per::Tenant).read("s").unwrap();
    assert_eq!(room(&limiter, &limits, None, ADA).await, 2);
    assert_eq!(room(&limiter, &limits, None, key("key:1")).await, 0);
}

#[tokio::test]
async fn what_is_reserved_is_settled() {
    let (limiter, _) = limiter();
    let limits = RateLimiting::new(["50/minute"]).read("s").unwrap();
    let Ok(Decision::Allowed(left, reservation)) = limiter.reserve(limits.of(None), &ADA, 40).await
    else {
        panic!("it is not allowed")
    };
    assert_eq!(left[0].standing.remaining, 10);
    limiter.settle(reservation, 5).await;
    assert_eq!(room(&limiter, &limits, None, ADA).await, 45);
}

#[test]
fn an_operator_overrules_a_program() {
    let program = RateLimiting::new(["5/minute"]).endpoint("/a", ["1/day"]).quota("5/day");
    let operator = RateLimiting::default().endpoint("/b", ["2/day"]).quota("7/day");
    let both = program.clone().overruled_by(&operator);
    let expected =
        RateLimiting::new(["5/minute"]).endpoint("/a", ["1/day"]).endpoint("/b", ["2/day"]);
    assert_eq!(both, expected.quota("7/day"));
    assert_eq!(program.clone().overruled_by(&RateLimiting::default()), program);
}

#[test]
fn a_limit_that_is_none_is_named() {
    let why = |it: RateLimiting| it.read("s").unwrap_err().to_string();
    assert!(why(RateLimiting::new(["5/week"])).starts_with("`5/week` of `default` is no limit: "));
    assert!(why(RateLimiting::default().quota("5/minute")).contains("`quota`"));
    let many = RateLimiting::new(std::iter::repeat_n("1/day", 17));
    assert_eq!(many.read("s").unwrap_err(), LimitsError::TooMany("default".to_owned()));
    assert!(RateLimiting::default().read("s").unwrap().is_empty());
}

/// A store that fails as often as it is told, and knows how often it was asked.
#[derive(Debug, Default)]
struct Failing {
    asked: Mutex<u32>,
}

#[async_trait]
impl Store for Failing {
    async fn take(&self, _: &[Count<'_>], _: u64) -> Result<Taken, StoreError> {
        *self.asked.lock() += 1;
        Err(StoreError::Silent)
    }

    async fn settle(&self, _: &[Count<'_>], _: i64, _: u64, _: u64) -> Result<(), StoreError> {
        Err(StoreError::Silent)
    }
}

#[tokio::test]
async fn a_store_that_fails_is_asked_once_a_second_and_requests_go_on_or_do_not() {
    let clock = Clock::fixed(Time::from_micros(NOW));
    let limits = RateLimiting::new(["5/minute"]).read("s").unwrap();
    let store = Arc::new(Failing::default());
    let open = Limiter::new(store.clone(), OnFailure::Open, clock.clone());
    for _ in 0..10 {
        let decision = open.reserve(limits.of(None), &ADA, 1).await;
        assert!(matches!(decision, Ok(Decision::Uncounted)));
    }
    assert_eq!((*store.asked.lock(), open.counters()[1].get()), (1, 10));
    clock.advance(Duration::from_secs(1));
    assert!(open.reserve(limits.of(None), &ADA, 1).await.is_ok());
    assert_eq!(*store.asked.lock(), 2);

    let closed = Limiter::new(store, OnFailure::Closed, clock);
    let refused = closed.reserve(limits.of(None), &ADA, 1).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Unavailable, "rate_limits_unavailable"));
    assert_eq!(closed.counters()[1].get(), 1);
}
