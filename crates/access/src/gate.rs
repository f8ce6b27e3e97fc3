//! Where everybody comes in. The gate remembers for a moment whom it has let in, so that most requests
//! ask no database, and forgets soon enough that a revoked key is of no use anywhere after a second.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::{Caller, Clock, DEPLOYMENT, Db, Failure, Kind, Result, Ulid};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::identity::{Identity, refused};
use crate::key::{self, Keys};
use crate::role::{self, Roles};
use crate::session::{Presented, Sessions};

/// How long an identity is believed: what is revoked is refused everywhere within a second.
const BELIEVED: Duration = Duration::from_millis(800);
/// How long it is known that nobody is behind something, so that a new key is of use soon.
const DOUBTED: Duration = Duration::from_millis(200);
/// Entries of each kind that are remembered.
const MOST: usize = 10_000;
/// The longest key that is looked at. Those of ours are shorter; nobody has to hash what is longer.
const LONGEST_KEY: usize = 200;
/// The longest of anything else, such as a token.
const LONGEST: usize = 8 << 10;

/// The gate of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    keys: Keys,
    sessions: Sessions,
    roles: Roles,
    clock: Clock,
    memory: Mutex<Memory>,
}

/// What the gate knows something by: SHA-256 of what was presented.
type Print = [u8; 32];

/// What somebody presents, by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A key.
    Key,
    /// An access token, which has dots.
    Token,
    /// A browser's cookie.
    Cookie,
}

impl Form {
    /// The form of a text, when it can be what it looks like.
    fn of(presented: &str) -> Option<Self> {
        if presented.starts_with(key::MARK) {
            let may_be = presented.len() <= LONGEST_KEY && key::is_well_formed(presented);
            return may_be.then_some(Form::Key);
        }
        let form = if presented.contains('.') { Form::Token } else { Form::Cookie };
        (!presented.is_empty() && presented.len() <= LONGEST).then_some(form)
    }
}

impl Gate {
    /// A gate that asks `keys` and `sessions`, and `roles` what users may.
    pub fn new(db: Db, keys: Keys, sessions: Sessions, roles: Roles, clock: Clock) -> Self {
        let memory = Mutex::default();
        Self(Arc::new(Inner { db, keys, sessions, roles, clock, memory }))
    }

    /// Who presents something, if the gate has seen it a moment ago, or need not ask anybody. It is not
    /// counted: see [`Gate::pass`].
    pub fn known(&self, presented: &str, address: Option<IpAddr>) -> Option<Result<Arc<Identity>>> {
        if Form::of(presented).is_none() {
            return Some(Err(refused()));
        }
        self.recall(&print(presented), address)
    }

    /// Who presents something. It is not counted: see [`Gate::pass`].
    ///
    /// # Errors
    /// `unauthenticated`, in the same words whatever the reason is; when the database refuses.
    pub async fn admit(&self, presented: &str, address: Option<IpAddr>) -> Result<Arc<Identity>> {
        let form = Form::of(presented).ok_or_else(refused)?;
        let print = print(presented);
        if let Some(known) = self.recall(&print, address) {
            return known;
        }
        // What is remembered is as old as the question, not as the answer.
        let asked_at = Instant::now();
        let found = match form {
            Form::Key => self.0.keys.find(presented).await.map(|found| {
                if found.identity.admits(address, self.0.clock.now()) {
                    self.0.keys.used(&found);
                }
                found.identity
            }),
            Form::Token => self.session(Presented::AccessToken(presented)).await,
            Form::Cookie => self.session(Presented::Cookie(presented)).await,
        };
        let mut memory = self.0.memory.lock();
        match found {
            Ok(identity) => {
                let identity = Arc::new(identity);
                memory.believe(print, &identity, asked_at);
                self.check(identity, address)
            }
            Err(failure) => {
                // That a database is away says nothing of a key.
                if failure.kind() == Kind::Unauthenticated {
                    memory.doubt(print, asked_at);
                }
                Err(failure)
            }
        }
    }

    /// Who is behind a session. One that has to set up a second factor first may do nothing else.
    async fn session(&self, presented: Presented<'_>) -> Result<Identity> {
        let found = self.0.sessions.identify(presented).await?;
        let system = Caller::system("gate", &found.tenant, DEPLOYMENT);
        let scope = system.permit_in_deployment(role::READ)?;
        let bindings = match found.limited {
            true => Vec::new(),
            false => self.0.roles.of(&mut self.0.db.conn().await?, scope, found.user).await?,
        };
        let identity = Identity::of_user(&found.tenant, found.user, found.proof(), bindings);
        Ok(Identity { expires_at: Some(found.expires_at), ..identity })
    }

    fn recall(&self, print: &Print, address: Option<IpAddr>) -> Option<Result<Arc<Identity>>> {
        let identity = self.0.memory.lock().recall(print, Instant::now())?;
        let Some(identity) = identity else { return Some(Err(refused())) };
        Some(self.check(identity, address))
    }

    /// What is asked on every request, however well somebody is known.
    fn check(&self, identity: Arc<Identity>, address: Option<IpAddr>) -> Result<Arc<Identity>> {
        match identity.admits(address, self.0.clock.now()) {
            true => Ok(identity),
            false => Err(refused()),
        }
    }

    /// Counts a request of somebody who was let in: once for each, however often the gate was asked who it is.
    ///
    /// # Errors
    /// `rate_exceeded`.
    pub fn pass(&self, identity: &Identity) -> Result<()> {
        let Some(per_minute) = identity.per_minute else { return Ok(()) };
        let counted = self.0.memory.lock().count(identity.id, per_minute, Instant::now());
        counted.map_err(|wait| {
            let seconds = wait.as_secs_f64().ceil();
            let detail =
                format!("this may be used {per_minute} times a minute; try again in {seconds} s");
            Failure::new(Kind::Exhausted, "rate_exceeded", detail).with_wait(wait)
        })
    }
}

fn print(presented: &str) -> Print {
    Sha256::digest(presented.as_bytes()).into()
}

/// What a gate remembers. Who guesses fills only what it knows of nobody.
#[derive(Debug, Default)]
struct Memory {
    believed: HashMap<Print, (Instant, Arc<Identity>)>,
    doubted: HashMap<Print, Instant>,
    /// When each limited identity would have been here last if it had come evenly (GCRA).
    due: HashMap<Ulid, Instant>,
}

impl Memory {
    /// Who is behind something, `Some(None)` when nobody is.
    #[expect(clippy::option_option, reason = "not known, known to be nobody, known")]
    fn recall(&self, print: &Print, now: Instant) -> Option<Option<Arc<Identity>>> {
        if let Some((asked_at, identity)) = self.believed.get(print)
            && now.duration_since(*asked_at) < BELIEVED
        {
            return Some(Some(Arc::clone(identity)));
        }
        let asked_at = self.doubted.get(print)?;
        (now.duration_since(*asked_at) < DOUBTED).then_some(None)
    }

    fn believe(&mut self, print: Print, identity: &Arc<Identity>, asked_at: Instant) {
        make_room(&mut self.believed, |it| asked_at.duration_since(it.0) < BELIEVED);
        self.doubted.remove(&print);
        self.believed.insert(print, (asked_at, Arc::clone(identity)));
    }

    fn doubt(&mut self, print: Print, asked_at: Instant) {
        make_room(&mut self.doubted, |it| asked_at.duration_since(*it) < DOUBTED);
        self.believed.remove(&print);
        self.doubted.insert(print, asked_at);
    }

    /// Counts one request, or says how long to wait. As many may come at once as may come in a minute, and
    /// then one whenever an even share of the minute has passed.
    fn count(&mut self, id: Ulid, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let minute = Duration::from_secs(60);
        let share = minute / per_minute.max(1);
        make_room(&mut self.due, |it| *it > now);
        let due = self.due.entry(id).or_insert(now);
        let ahead = due.saturating_duration_since(now);
        let most = minute.saturating_sub(share);
        if ahead > most {
            return Err(ahead.saturating_sub(most));
        }
        *due = (*due).max(now) + share;
        Ok(())
    }
}

/// Forgets what is of no use when there is too much, and everything when all of it is.
fn make_room<K: Eq + Hash, V>(all: &mut HashMap<K, V>, is_of_use: impl Fn(&V) -> bool) {
    if all.len() >= MOST {
        all.retain(|_, it| is_of_use(it));
        if all.len() >= MOST {
            all.clear();
        }
    }
}

#[cfg(test)]
mod tests;
