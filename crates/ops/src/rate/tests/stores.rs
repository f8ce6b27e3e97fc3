//! What every store does, by one suite that each runs.

use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::{Clock, Time};
use proptest::prelude::*;

use super::super::model::{Policy, State};
use super::super::{Count, ENTRIES, MOST_LIMITS, MemoryStore, Store, StoreError};
use super::{NOW, policy};

/// A store whose time stands still, and a word that no other test's keys begin with.
pub struct Place {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub word: String,
}

fn in_memory() -> Place {
    let clock = Clock::fixed(Time::from_micros(NOW));
    let store = Arc::new(MemoryStore::new(clock.clone(), ENTRIES));
    Place { store, clock, word: String::new() }
}

macro_rules! in_both_stores {
    ($(async fn $name:ident($place:ident: Place) $body:block)+) => {
        $(mod $name {
            use super::*;

            async fn check($place: Place) $body

            #[tokio::test]
            async fn memory() {
                check(in_memory()).await;
            }

            #[cfg(feature = "redis")]
            #[tokio::test]
            async fn redis() {
                check(super::super::in_redis::place()).await;
            }
        })+
    };
}

impl Place {
    /// Takes `cost` of limits, each with the name of whom it counts.
    async fn take(&self, of: &[(&str, &Policy)], cost: u64) -> bool {
        let keys: Vec<String> = of.iter().map(|it| format!("{}{}", self.word, it.0)).collect();
        let counts: Vec<_> =
            keys.iter().zip(of).map(|(key, it)| Count { key, policy: it.1 }).collect();
        self.store.take(&counts, cost).await.unwrap().allowed
    }

    /// How often one more is allowed.
    async fn room(&self, of: &[(&str, &Policy)]) -> u32 {
        let mut room = 0;
        while self.take(of, 1).await {
            room += 1;
        }
        room
    }
}

in_both_stores! {
    async fn each_name_is_counted_by_itself(place: Place) {
        let limit = policy("5/minute");
        assert_eq!(place.room(&[("a", &limit)]).await, 5);
        assert_eq!(place.room(&[("b", &limit)]).await, 5);
        place.clock.advance(Duration::from_secs(12));
        assert_eq!(place.room(&[("a", &limit)]).await, 1);
        place.clock.advance(Duration::from_secs(3600));
        assert_eq!(place.room(&[("a", &limit)]).await, 5);
    }

    async fn all_limits_must_allow_and_nothing_is_taken_otherwise(place: Place) {
        let (minute, hour) = (policy("10/minute"), policy("3/hour"));
        assert_eq!(place.room(&[("m", &minute), ("h", &hour)]).await, 3);
        assert_eq!(place.room(&[("m", &minute)]).await, 7);
        assert!(!place.take(&[("n", &minute), ("h", &hour)], 1).await);
        assert_eq!(place.room(&[("n", &minute)]).await, 10);
    }

    async fn a_quota_is_used_up_until_its_window_ends(place: Place) {
        let (quota, rate) = (policy("quota 4/day"), policy("100/second"));
        assert_eq!(place.room(&[("q", &quota), ("r", &rate)]).await, 4);
        let rest = 86_400_000_000 - NOW % 86_400_000_000;
        place.clock.advance(Duration::from_micros(u64::try_from(rest - 1).unwrap()));
        assert_eq!(place.room(&[("q", &quota), ("r", &rate)]).await, 0);
        place.clock.advance(Duration::from_micros(1));
        assert_eq!(place.room(&[("q", &quota), ("r", &rate)]).await, 4);
    }

    async fn a_reservation_is_settled_with_what_it_came_to(place: Place) {
        let (rate, quota) = (policy("10/minute"), policy("quota 20/month"));
        let keys = [format!("{}r", place.word), format!("{}q", place.word)];
        let counts = [Count { key: &keys[0], policy: &rate }, Count { key: &keys[1], policy: &quota }];
        let taken = place.store.take(&counts, 8).await.unwrap();
        assert!(taken.allowed);
        place.store.settle(&counts, taken.at, 8, 3).await.unwrap();
        assert_eq!(place.room(&[("r", &rate)]).await, 7);
        assert_eq!(place.room(&[("q", &quota)]).await, 17);
        // More than was reserved is owed.
        place.clock.advance(Duration::from_secs(60));
        let taken = place.store.take(&counts[..1], 1).await.unwrap();
        place.store.settle(&counts[..1], taken.at, 1, 15).await.unwrap();
        place.clock.advance(Duration::from_secs(30));
        assert_eq!(place.room(&[("r", &rate)]).await, 0);
        place.clock.advance(Duration::from_secs(6));
        assert_eq!(place.room(&[("r", &rate)]).await, 1);
    }

    async fn those_who_ask_together_get_no_more(place: Place) {
        let (minute, quota) = (policy("100/minute"), policy("quota 70/hour"));
        let place = Arc::new(place);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (place, minute, quota) = (place.clone(), minute.clone(), quota.clone());
            asking.spawn(async move {
                let mut allowed = 0;
                for _ in 0..4 {
                    allowed += u32::from(place.take(&[("m", &minute), ("q", &quota)], 1).await);
                }
                allowed
            });
        }
        assert_eq!(asking.join_all().await.into_iter().sum::<u32>(), 70);
    }

    async fn what_may_never_be_is_refused(place: Place) {
        let limit = policy("10/minute burst 3");
        assert!(!place.take(&[("a", &limit)], 4).await);
        assert!(!place.take(&[("a", &limit)], u64::from(u32::MAX)).await);
        assert!(place.take(&[("a", &limit)], 3).await);
        let keys: Vec<String> = (0..=MOST_LIMITS).map(|it| it.to_string()).collect();
        let counts: Vec<_> = keys.iter().map(|key| Count { key, policy: &limit }).collect();
        let refused = place.store.take(&counts, 1).await;
        assert!(matches!(refused, Err(StoreError::TooMany)), "{refused:?}");
    }
}

fn entry(store: &MemoryStore, key: &str, limit: &Policy, cost: u64) -> State {
    let counts = [Count { key, policy: limit }];
    let taken = futures(store.take(&counts, cost));
    taken.states[0]
}

/// What is in memory is there at once.
fn futures<T>(future: impl Future<Output = Result<T, StoreError>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future).unwrap()
}

#[test]
fn memory_has_a_bound_and_forgets_what_is_unused_first() {
    let clock = Clock::fixed(Time::from_micros(NOW));
    let store = MemoryStore::new(clock.clone(), 64 * 8);
    let limit = policy("10/minute");
    // Used up, and in it for an hour: it stays when others that are unused again can go.
    let kept = policy("10/hour");
    entry(&store, "kept", &kept, 10);
    for round in 0..100 {
        clock.advance(Duration::from_secs(7));
        for n in 0..5 {
            entry(&store, &format!("{round}/{n}"), &limit, 1);
        }
        assert!(store.entries() <= 64 * 8);
    }
    assert!(store.entries() > 300, "{}", store.entries());
    assert!(!kept.allows(entry(&store, "kept", &kept, 1), 10));
    for n in 0..20_000 {
        entry(&store, &format!("many/{n}"), &limit, 1);
    }
    assert!(store.entries() <= 64 * 8);
}

proptest! {
    /// However many limits there are, what is allowed is what each of them would allow by itself.
    #[test]
    fn several_limits_allow_what_each_allows(
        arrivals in proptest::collection::vec((0..3_000_000_i64, 1..4_u64), 1..200),
    ) {
        let clock = Clock::fixed(Time::from_micros(NOW));
        let store = MemoryStore::new(clock.clone(), ENTRIES);
        let limits = ["5/second burst 7", "90/minute burst 20", "quota 150/hour"].map(policy);
        let keys = ["a", "b", "c"];
        let counts: Vec<_> =
            keys.iter().zip(&limits).map(|(key, policy)| Count { key, policy }).collect();
        let mut states = [None; 3];
        for (pause, cost) in arrivals {
            clock.advance(Duration::from_micros(u64::try_from(pause).unwrap()));
            let now = clock.now().micros();
            let at: Vec<State> =
                limits.iter().zip(states).map(|(it, state)| it.at(state, now)).collect();
            let each = limits.iter().zip(&at).all(|(it, state)| it.allows(*state, cost));
            prop_assert_eq!(futures(store.take(&counts, cost)).allowed, each);
            if each {
                for ((state, it), at) in states.iter_mut().zip(&limits).zip(at) {
                    *state = Some(it.take(at, cost));
                }
            }
        }
    }
}
