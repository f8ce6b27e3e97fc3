//! Chance that can be repeated.

use std::hash::BuildHasher;
use std::time::Duration;

/// Kills per database on an ordinary run.
const KILLS: u32 = 40;

/// A sequence that its seed decides (`SplitMix64`).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence that `CRASH_SEED` names, or else a new one; shown, so that it can be named.
    pub(super) fn of_this_run() -> Self {
        let seed = variable("CRASH_SEED")
            .unwrap_or_else(|| std::hash::RandomState::new().hash_one("a seed") >> 32);
        println!("CRASH_SEED={seed}");
        Self(seed)
    }

    /// A sequence for one of several who draw at the same time.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A time below `end`, in whole microseconds.
    pub(super) fn time_below(&mut self, end: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(end.as_micros()).unwrap()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }
}

/// How many kills are a test's part, in hundredths of all on its database.
pub(super) fn kills(percent: u32) -> u32 {
    let all = variable("CRASH_KILLS").and_then(|it| u32::try_from(it).ok()).unwrap_or(KILLS);
    (all * percent).div_ceil(100)
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings")]
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
