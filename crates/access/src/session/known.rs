//! Sessions that were looked at a moment ago, so that not every request asks the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::Time;
use parking_lot::Mutex;

use super::SessionIdentity;

/// How long what was found is believed: the end of a session is known to every process within a second.
const BELIEVED: Duration = Duration::from_millis(800);
/// How many are remembered.
const MOST: usize = 10_000;

/// The hash of what was shown.
pub(super) type Key = [u8; 32];

/// What is remembered. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    found: HashMap<Key, (Time, SessionIdentity)>,
    /// How often all was forgotten.
    generation: u64,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Known {
    /// What was found a moment ago, or the generation in which to look.
    pub(super) fn get(&self, key: &Key, now: Time) -> Result<SessionIdentity, u64> {
        let inner = self.0.lock();
        match inner.found.get(key) {
            Some((at, it)) if now >= *at && now.since(*at) < BELIEVED && it.expires_at > now => {
                Ok(it.clone())
            }
            _ => Err(inner.generation),
        }
    }

    /// Remembers what was found, unless something has ended since.
    pub(super) fn put(&self, key: Key, generation: u64, now: Time, it: &SessionIdentity) {
        let mut inner = self.0.lock();
        if inner.generation != generation {
            return;
        }
        if inner.found.len() >= MOST {
            inner.found.clear();
        }
        inner.found.insert(key, (now, it.clone()));
    }

    /// Forgets everything, because a session has ended or a user has changed.
    pub(crate) fn forget(&self) {
        let mut inner = self.0.lock();
        inner.generation += 1;
        inner.found.clear();
    }
}
