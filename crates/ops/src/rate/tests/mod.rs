mod arithmetic;
mod deciding;
#[cfg(feature = "redis")]
mod in_redis;
mod stores;

use super::model::Policy;

fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|it| panic!("{text}: {it}"))
}

/// An instant in the middle of a second, in microseconds since 1970.
const NOW: i64 = 1_790_000_000_123_456;
