//! Counting for one process.
//!
//! What has been used is kept in shards, each with a lock of its own and a bounded number of entries. A
//! new entry of a full shard takes the place of one of the next few whose limits are unused again, or
//! else of which least is used: a limit never costs more memory than that, however many clients there
//! are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use modelyard_kernel::Clock;
use parking_lot::{Mutex, MutexGuard};

use super::counting::{Count, MOST_LIMITS, Store, StoreError, Taken};
use super::model::{Policy, State};

const SHARDS: usize = 64;
/// How many entries are remembered unless told otherwise: about 25 MB at most.
pub const ENTRIES: usize = 1 << 17;
/// How many entries are looked at for a place.
const LOOK: usize = 16;

/// Remembers in this process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Clock,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Arc<str>, usize>,
    entries: Vec<Entry>,
    most: usize,
    /// Where a place is looked for next.
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    key: Arc<str>,
    policy: Policy,
    state: State,
}

impl MemoryStore {
    /// Remembers at most so many entries, rounded up to a multiple of 64.
    pub fn new(clock: Clock, entries: usize) -> Self {
        let most = entries.div_ceil(SHARDS).max(1);
        let shard = || Mutex::new(Shard { most, ..Shard::default() });
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Self { clock, hasher: RandomState::new(), shards }
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|it| it.lock().entries.len()).sum()
    }

    /// Does something with what is used now of each limit while nobody else can. What it answers
    /// with is kept.
    fn change(
        &self,
        counts: &[Count<'_>],
        decide: impl FnOnce(&mut [State]) -> bool,
    ) -> Result<Taken, StoreError> {
        if counts.len() > MOST_LIMITS {
            return Err(StoreError::TooMany);
        }
        let now = self.clock.now().micros();
        let mut of = [0; MOST_LIMITS];
        for (of, count) in of.iter_mut().zip(counts) {
            *of = usize::try_from(self.hasher.hash_one(count.key)).unwrap_or(0) % SHARDS;
        }
        let of = &of[..counts.len()];
        // In the order of the shards, so that nobody waits for somebody who waits for him.
        let mut wanted = [false; SHARDS];
        of.iter().for_each(|it| wanted[*it] = true);
        let mut locked: [Option<MutexGuard<'_, Shard>>; SHARDS] = [const { None }; SHARDS];
        for (at, _) in wanted.iter().enumerate().filter(|it| *it.1) {
            locked[at] = Some(self.shards[at].lock());
        }
        let known = counts.iter().zip(of).map(|(Count { key, policy }, at)| {
            let state = locked[*at].as_ref().and_then(|it| it.get(key));
            policy.at(state, now)
        });
        let mut states: Vec<State> = known.collect();
        let allowed = decide(&mut states);
        if allowed {
            for ((Count { key, policy }, at), state) in counts.iter().zip(of).zip(&states) {
                if let Some(shard) = &mut locked[*at] {
                    shard.set(key, policy, *state, now);
                }
            }
        }
        Ok(Taken { at: now, allowed, states })
    }
}

impl Shard {
    fn get(&self, key: &str) -> Option<State> {
        let place = *self.places.get(key)?;
        self.entries.get(place).map(|it| it.state)
    }

    fn set(&mut self, key: &str, policy: &Policy, state: State, now: i64) {
        if let Some(place) = self.places.get(key)
            && let Some(entry) = self.entries.get_mut(*place)
        {
            entry.state = state;
            return;
        }
        let key: Arc<str> = key.into();
        let entry = Entry { key: key.clone(), policy: policy.clone(), state };
        let place = match self.entries.len() < self.most {
            true => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
            false => {
                let place = self.free(now);
                let old = std::mem::replace(&mut self.entries[place], entry);
                self.places.remove(&old.key);
                place
            }
        };
        self.places.insert(key, place);
    }

    /// The place of an entry that is missed least, among the next few.
    fn free(&mut self, now: i64) -> usize {
        let mut least = (u64::MAX, self.hand);
        for step in 0..LOOK.min(self.entries.len()) {
            let place = (self.hand + step) % self.entries.len();
            let Entry { policy, state, .. } = &self.entries[place];
            let used = policy.share(policy.at(Some(*state), now));
            if used < least.0 {
                least = (used, place);
            }
            if used == 0 {
                break;
            }
        }
        self.hand = (least.1 + 1) % self.entries.len();
        least.1
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn take(&self, counts: &[Count<'_>], cost: u64) -> Result<Taken, StoreError> {
        self.change(counts, |states| {
            let pairs = || counts.iter().zip(states.iter());
            let allowed = pairs().all(|(it, state)| it.policy.allows(*state, cost));
            if allowed {
                for (it, state) in counts.iter().zip(states.iter_mut()) {
                    *state = it.policy.take(*state, cost);
                }
            }
            allowed
        })
    }

    async fn settle(
        &self,
        counts: &[Count<'_>],
        at: i64,
        taken: u64,
        actual: u64,
    ) -> Result<(), StoreError> {
        self.change(counts, |states| {
            for (it, state) in counts.iter().zip(states) {
                *state = it.policy.settle(*state, at, taken, actual);
            }
            true
        })
        .map(drop)
    }
}
