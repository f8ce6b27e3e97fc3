//! Passwords: which are refused, and how the others are kept.
//!
//! Argon2id, whose cost is that of OWASP's cheat sheet. It takes a core for some 20 ms and 19 MiB, so
//! only as many are computed at once as there are cores, and only so many may wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use modelyard_kernel::background::compute;
use modelyard_kernel::form::Violation;
use modelyard_kernel::part::Counter;
use modelyard_kernel::{Failure, Kind, Result};
use serde_json::Value;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

use crate::secret::random;

/// Characters that a password has at least.
pub const MIN_CHARS: usize = 12;
/// Characters that a password has at most.
pub const MAX_CHARS: usize = 256;
/// Characters of which the strength is estimated: the effort grows with their square.
const ESTIMATED_CHARS: usize = 100;

/// A password as somebody said it. It is never shown, and wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// What somebody said.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Whether there can be such a password: what is longer is not even computed.
    fn fits(&self) -> bool {
        self.0.len() <= MAX_CHARS * 4 && self.0.chars().count() <= MAX_CHARS
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What a hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// How often it goes through the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// The first that <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>
    /// gives for Argon2id.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

/// How passwords are hashed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What a hash costs; those that cost something else are made anew at the next login.
    pub cost: Cost,
    /// How many are computed at once.
    pub at_once: usize,
    /// How many may wait for that.
    pub waiting: usize,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cost: Cost::default(), at_once: cores, waiting: 32 * cores }
    }
}

/// Why a password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    #[error(
        "a password has at least {MIN_CHARS} characters; take some words that have nothing to do with each other"
    )]
    Short,
    #[error("a password has at most {MAX_CHARS} characters; take a shorter one")]
    Long,
    #[error(
        "a password is not the e-mail address or the name; take some words that are not about you"
    )]
    Personal,
    #[error(
        "this password is too easy to guess; take some words that have nothing to do with each other"
    )]
    Common,
}

impl Weakness {
    /// The answer to a request whose field `field` has the password, which it does not repeat.
    pub fn refusal(self, field: &str) -> Failure {
        let loc = vec!["body".into(), field.into()];
        let violation = Violation::new("password_weak", loc, self.to_string(), &Value::Null, None);
        Failure::violations(vec![violation])
    }
}

/// Hashes passwords and checks them. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon: Argon2<'static>,
    options: Options,
    /// What is computed for users that are unknown, so that it takes as long.
    dummy: String,
    slots: Arc<Semaphore>,
    inside: AtomicUsize,
    computed: Counter,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// A place among those that compute or wait.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Hashes as `options` say. Computes one hash on the way.
    ///
    /// # Errors
    /// When Argon2 has no such cost.
    pub fn new(options: Options) -> Result<Self> {
        let Cost { memory_kib, passes, lanes } = options.cost;
        let params = Params::new(memory_kib, passes, lanes, None).map_err(Failure::internal)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon, &random::<32>())?;
        Ok(Self(Arc::new(Inner {
            argon,
            options,
            dummy,
            slots: Arc::new(Semaphore::new(options.at_once.max(1))),
            inside: AtomicUsize::new(0),
            computed: Counter::new(
                "access_password_hashes_total",
                "Hashes of passwords that were computed.",
            ),
        })))
    }

    /// Counts the hashes that were computed.
    pub fn computed(&self) -> &Counter {
        &self.0.computed
    }

    /// The hash of a password, in PHC format.
    ///
    /// # Errors
    /// `passwords_busy` when too many wait.
    pub async fn hash(&self, password: &Password) -> Result<String> {
        let password = password.clone();
        self.compute(true, move |it| hash(&it.argon, password.0.as_bytes())).await?
    }

    /// Whether a password has this hash. Without one it has not, which takes as long to find out.
    ///
    /// # Errors
    /// `passwords_busy` when too many wait; when the hash is none.
    pub async fn verify(&self, password: &Password, hash: Option<&str>) -> Result<bool> {
        let may_be = hash.is_some() && password.fits();
        let hash = hash.unwrap_or(&self.0.dummy).to_owned();
        let password = if password.fits() { password.clone() } else { Password::new("") };
        let right = self.compute(true, move |it| {
            let hash = PasswordHash::new(&hash).map_err(Failure::internal)?;
            Ok::<_, Failure>(it.argon.verify_password(password.0.as_bytes(), &hash).is_ok())
        });
        Ok(right.await?? && may_be)
    }

    /// Whether a hash is not as hashes are made now.
    pub fn needs_rehash(&self, hash: &str) -> bool {
        let made = |hash: &PasswordHash| {
            let params = Params::try_from(hash).ok()?;
            let cost = Cost {
                memory_kib: params.m_cost(),
                passes: params.t_cost(),
                lanes: params.p_cost(),
            };
            let current = hash.version == Some(Version::V0x13.into());
            Some(hash.algorithm.as_str() == "argon2id" && current && cost == self.0.options.cost)
        };
        PasswordHash::new(hash).ok().and_then(|it| made(&it)) != Some(true)
    }

    /// Why a password is refused, if it is. `personal` is what others know of whoever it is for, such as
    /// the name.
    ///
    /// # Errors
    /// `passwords_busy` when too many wait.
    pub async fn weakness(
        &self,
        password: &Password,
        personal: &[&str],
    ) -> Result<Option<Weakness>> {
        if !password.fits() {
            return Ok(Some(Weakness::Long));
        }
        if password.0.chars().count() < MIN_CHARS {
            return Ok(Some(Weakness::Short));
        }
        let password = password.clone();
        let personal: Vec<String> = personal.iter().map(|it| it.to_lowercase()).collect();
        self.compute(false, move |_| estimate(&password, &personal)).await
    }

    async fn compute<T: Send + 'static>(
        &self,
        is_hash: bool,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T> {
        let Options { at_once, waiting, .. } = self.0.options;
        let before = self.0.inside.fetch_add(1, Ordering::Relaxed);
        let _place = Place(&self.0.inside);
        if before >= at_once.saturating_add(waiting) {
            return Err(Failure::new(
                Kind::Unavailable,
                "passwords_busy",
                "too many passwords are being checked at this moment, try again in a few seconds",
            ));
        }
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(Failure::internal)?;
        if is_hash {
            self.0.computed.increment();
        }
        let inner = Arc::clone(&self.0);
        compute(move || {
            // Held until it is done, even when nobody waits for it any more.
            let _slot = slot;
            work(&inner)
        })
        .await
    }
}

fn hash(argon: &Argon2<'_>, password: &[u8]) -> Result<String> {
    let hash = argon.hash_password_with_salt(password, &random::<16>());
    Ok(hash.map_err(Failure::internal)?.to_string())
}

fn estimate(password: &Password, personal: &[String]) -> Option<Weakness> {
    let lower = Zeroizing::new(password.0.to_lowercase());
    let beginning = |it: &str| it.split('@').next().unwrap_or_default().to_owned();
    let is_personal = |it: &String| {
        let all = it.contains('@') && lower.contains(it.as_str());
        all || *lower == *it || *lower == beginning(it)
    };
    if personal.iter().any(is_personal) {
        return Some(Weakness::Personal);
    }
    let mut words: Vec<&str> = personal.iter().map(String::as_str).collect();
    words.extend(personal.iter().flat_map(|it| it.split(|c: char| !c.is_alphanumeric())));
    let estimated = Zeroizing::new(password.0.chars().take(ESTIMATED_CHARS).collect::<String>());
    (zxcvbn(&estimated, &words).score() < Score::Three).then_some(Weakness::Common)
}

/// As tests want it: it costs next to nothing.
#[cfg(test)]
pub(crate) fn cheap() -> Passwords {
    let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    Passwords::new(Options { cost, ..Options::default() }).expect("Argon2 has such a cost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "plover quartz 71 lantern";

    #[test]
    fn a_password_has_its_hash_and_no_other() {
        modelyard_testkit::run(async {
            let passwords = Passwords::new(Options::default()).unwrap();
            let hash = passwords.hash(&Password::new(GOOD)).await.unwrap();
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
            assert_ne!(hash, passwords.hash(&Password::new(GOOD)).await.unwrap());
            assert!(passwords.verify(&Password::new(GOOD), Some(&hash)).await.unwrap());
            assert!(!passwords.verify(&Password::new("other"), Some(&hash)).await.unwrap());
            assert!(!passwords.verify(&Password::new(GOOD), None).await.unwrap());
            let long = Password::new("x".repeat(1 << 20));
            assert!(!passwords.verify(&long, Some(&hash)).await.unwrap());
            // Each of them took one.
            assert_eq!(passwords.computed().get(), 6);
        });
    }

    #[test]
    fn hashes_of_another_cost_are_to_be_made_anew() {
        modelyard_testkit::run(async {
            let hash = cheap().hash(&Password::new(GOOD)).await.unwrap();
            assert!(!cheap().needs_rehash(&hash));
            let passwords = Passwords::new(Options::default()).unwrap();
            assert!(passwords.needs_rehash(&hash));
            assert!(passwords.needs_rehash("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAA"));
            assert!(passwords.needs_rehash("nonsense"));
            // What another cost made is right all the same.
            assert!(passwords.verify(&Password::new(GOOD), Some(&hash)).await.unwrap());
        });
    }

    #[test]
    fn weak_passwords_are_refused() {
        modelyard_testkit::run(async {
            let long = "correct horse battery staple and a fox ".repeat(6);
            let cases = [
                (GOOD, None),
                ("häuser über den flüssen 7", None),
                (&long, None),
                ("plover 71", Some(Weakness::Short)),
                ("öööööööö", Some(Weakness::Short)),
                (&"ü7".repeat(129), Some(Weakness::Long)),
                ("Ada.Lovelace@Example.org", Some(Weakness::Personal)),
                ("ada.lovelace", Some(Weakness::Personal)),
                ("Ada Lovelace", Some(Weakness::Personal)),
                ("x ada.lovelace@example.org", Some(Weakness::Personal)),
                ("password1234", Some(Weakness::Common)),
                ("qwertyuiop123", Some(Weakness::Common)),
                ("aaaaaaaaaaaaaaaaaaaa", Some(Weakness::Common)),
                ("iloveyou123456", Some(Weakness::Common)),
            ];
            let personal = ["ada.lovelace@example.org", "Ada Lovelace"];
            for (password, expected) in cases {
                let found = cheap().weakness(&Password::new(password), &personal).await.unwrap();
                assert_eq!(found, expected, "{password}");
            }
        });
    }

    #[test]
    fn more_than_may_wait_are_sent_away() {
        modelyard_testkit::run(async {
            let options = Options { at_once: 1, waiting: 1, ..Options::default() };
            let passwords = Passwords::new(options).unwrap();
            let password = Password::new(GOOD);
            let all = (0..4).map(|_| passwords.verify(&password, None));
            let all = futures_util::future::join_all(all).await;
            let refused: Vec<_> = all.iter().filter_map(|it| it.as_ref().err()).collect();
            assert_eq!(refused.len(), 2);
            assert!(refused.iter().all(|it| it.code() == "passwords_busy"));
            assert_eq!(refused[0].status().as_u16(), 503);
            // There is room again.
            assert!(passwords.verify(&password, None).await.is_ok());
        });
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", Some(Password::new(GOOD))), "Some(Password)");
        let problem = Weakness::Common.refusal("password");
        assert!(!format!("{problem:?}").contains(GOOD));
    }
}
