//! What is so in Redis only. The server is the one that `TEST_REDIS_URL` names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelyard_kernel::{Clock, Time};
use proptest::prelude::*;

use super::super::model::{Policy, State};
use super::super::{Count, RedisStore, Store};
use super::stores::Place;
use super::{NOW, policy};

#[expect(clippy::disallowed_methods, reason = "tests are told by a variable where the server is")]
fn url() -> String {
    std::env::var("TEST_REDIS_URL").unwrap_or_else(|_| {
        panic!(
            "there is no Redis for this test: run `cargo xtask test`, or set TEST_REDIS_URL to a \
             server that may be written to, such as redis://127.0.0.1:6379"
        )
    })
}

/// A word that nothing else begins with.
fn word() -> String {
    format!("modelyard:test:{}:", Clock::system().ulid())
}

pub fn place() -> Place {
    let clock = Clock::fixed(Time::from_micros(NOW));
    let mut store = RedisStore::open(&url()).unwrap();
    store.clock = Some(clock.clone());
    Place { store: Arc::new(store), clock, word: word() }
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_script_is_told_it_again() {
    let store = RedisStore::open(&url()).unwrap();
    let (key, limit) = (format!("{}a", word()), policy("10/minute"));
    let counts = [Count { key: &key, policy: &limit }];
    assert!(store.take(&counts, 1).await.unwrap().allowed);
    let client = ::redis::Client::open(url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = ::redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    assert!(store.take(&counts, 1).await.unwrap().allowed);
    // What is remembered goes by itself, soon after it is unused.
    let rest: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!((10_000..=14_000).contains(&rest), "{rest}");
}

/// What is allowed of all that is asked, and the time of the server at the first and the last that was
/// allowed.
async fn ask(
    store: Arc<RedisStore>,
    key: String,
    limit: Policy,
    lasts: Duration,
) -> (u64, i64, i64) {
    let began = Instant::now();
    let (mut allowed, mut first, mut last) = (0, i64::MAX, i64::MIN);
    while began.elapsed() < lasts {
        let taken = store.take(&[Count { key: &key, policy: &limit }], 1).await.unwrap();
        if taken.allowed {
            allowed += 1;
            first = first.min(taken.at);
        }
        last = last.max(taken.at);
    }
    (allowed, first, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_allow_what_one_may() {
    let (key, limit) = (format!("{}shared", word()), policy("200/second"));
    let nodes = [RedisStore::open(&url()).unwrap(), RedisStore::open(&url()).unwrap()];
    let asking = nodes.map(Arc::new).map(|node| {
        let (key, limit) = (key.clone(), limit.clone());
        async move { ask(node, key, limit, Duration::from_secs(3)).await }
    });
    let [one, two] = asking;
    let (one, two) = tokio::join!(one, two);
    let (allowed, time) = (one.0 + two.0, one.2.max(two.2) - one.1.min(two.1));
    let most = 200 + u64::try_from(time).unwrap() * 200 / 1_000_000;
    println!("{} and {} of {most} in {time} µs", one.0, two.0);
    assert!(allowed <= most, "{allowed} of {most}");
    assert!(allowed * 100 >= most * 99, "{allowed} of {most}");
    assert!(one.0 > 0 && two.0 > 0);
}

#[derive(Clone, Debug)]
enum Step {
    Take(u64),
    Settle(u64, u64),
}

fn limits() -> impl Strategy<Value = Policy> {
    let period = prop_oneof![Just("second"), Just("minute"), Just("hour"), Just("day")];
    let rate = (1..10_000_u64, period, 1..10_000_u64)
        .prop_map(|(count, period, burst)| policy(&format!("{count}/{period} burst {burst}")));
    let window = prop_oneof![Just("hour"), Just("day"), Just("month")];
    let quota =
        (1..100_u64, window).prop_map(|(count, period)| policy(&format!("quota {count}/{period}")));
    prop_oneof![rate, quota]
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let pause = prop_oneof![
        2 => Just(0_i64),
        2 => 0..2_000_000_i64,
        // A clock that is corrected a little, or set.
        1 => -3_000_000..0_i64,
        1 => 0..40 * 86_400_000_000_i64,
    ];
    let cost = prop_oneof![3 => 1..6_u64, 1 => 1..10_000_u64];
    let step = prop_oneof![
        4 => cost.prop_map(Step::Take),
        1 => (1..6_u64, 0..12_u64).prop_map(|(taken, actual)| Step::Settle(taken, actual)),
    ];
    proptest::collection::vec((pause, step), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_script_counts_as_the_model_does(
        limits in proptest::collection::vec(limits(), 1..4),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut store = RedisStore::open(&url()).unwrap();
            let word = word();
            let keys: Vec<String> = (0..limits.len()).map(|it| format!("{word}{it}")).collect();
            let counts: Vec<_> =
                keys.iter().zip(&limits).map(|(key, policy)| Count { key, policy }).collect();
            let mut states: Vec<Option<State>> = vec![None; limits.len()];
            let (mut now, mut taken_at) = (NOW, NOW);
            for (pause, step) in steps {
                now += pause;
                store.clock = Some(Clock::fixed(Time::from_micros(now)));
                let at: Vec<State> =
                    limits.iter().zip(&states).map(|(it, state)| it.at(*state, now)).collect();
                match step {
                    Step::Take(cost) => {
                        let allowed = limits.iter().zip(&at).all(|(it, at)| it.allows(*at, cost));
                        let next: Vec<State> = match allowed {
                            true => limits.iter().zip(&at).map(|(it, at)| it.take(*at, cost)).collect(),
                            false => at,
                        };
                        let taken = store.take(&counts, cost).await.unwrap();
                        prop_assert_eq!((taken.at, taken.allowed), (now, allowed));
                        prop_assert_eq!(&taken.states, &next);
                        if allowed {
                            states = next.into_iter().map(Some).collect();
                            taken_at = now;
                        }
                    }
                    Step::Settle(taken, actual) => {
                        store.settle(&counts, taken_at, taken, actual).await.unwrap();
                        for ((state, it), at) in states.iter_mut().zip(&limits).zip(at) {
                            let next = it.settle(at, taken_at, taken, actual);
                            // A window that is over is left alone.
                            if next != at || it.to_string().starts_with(|it: char| it.is_ascii_digit()) {
                                *state = Some(next);
                            }
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
