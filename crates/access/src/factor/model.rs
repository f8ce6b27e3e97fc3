//! Codes by time (RFC 6238), recovery codes, and how often somebody may be wrong. No I/O in this file.

use std::collections::HashMap;
use std::time::Duration;

use modelyard_kernel::{Caller, Failure, Kind, Proof, Result, Time, Ulid, columns};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Totp};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// Bytes of a secret: those of a SHA-1, as RFC 4226 recommends.
pub(super) const SECRET_BYTES: usize = 20;
/// Digits of a code.
pub(super) const DIGITS: u8 = 6;
/// Recovery codes that somebody has.
pub(super) const RECOVERY_CODES: usize = 10;
/// Bytes of a recovery code: 128 bits. They are hashed once only: so many cannot be tried.
const RECOVERY_BYTES: usize = 16;

/// For how long a proof is fresh enough for what is sensitive.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// Wrong codes after which further ones are refused.
const MOST_WRONG: u32 = 5;
/// Within which they count.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Users whose wrong codes are remembered.
const MOST_USERS: usize = 10_000;

/// What came of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorOutcome {
    /// The user has no second factor.
    NotSet,
    /// It has one, and no code was given.
    Missing,
    /// The code is wrong, or was used before.
    Wrong,
    /// The code was right, at that time.
    Right(Time),
}

/// Somebody's second factor.
#[derive(Debug)]
pub(super) struct Factor {
    pub(super) secret: Vec<u8>,
    pub(super) confirmed_at: Option<Time>,
}

columns!(Factor: secret, confirmed_at);

/// The state of a second factor.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactorState {
    /// Whether it is asked for at a login.
    pub enabled: bool,
    /// Whether it was begun, and no code was right yet.
    pub pending: bool,
    /// Since when it is asked for.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub confirmed_at: Option<Time>,
    /// How many recovery codes were not used yet.
    #[schema(example = 10)]
    pub recovery_codes_left: i64,
}

/// What an authenticator app needs to know. It is shown once.
#[derive(Serialize, ToSchema)]
pub struct FactorSetup {
    /// The address that the QR code has.
    #[schema(example = "otpauth://totp/Modelyard:ada%40example.org?secret=…&issuer=Modelyard")]
    pub uri: String,
    /// The secret in base 32, for those who type.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    pub secret: String,
    /// A QR code as SVG.
    pub qr: String,
}

/// Codes for when the authenticator is lost, each good for one login. They are shown once.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// The codes.
    #[schema(example = json!(["ABCD-EFGH-2345-WXYZ-ABCD-EFGH-23"]))]
    pub recovery_codes: Vec<String>,
}

/// Neither is for the log.
macro_rules! hide {
    ($($name:ident)+) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        })+
    };
}

hide!(FactorSetup RecoveryCodes);

impl FactorSetup {
    /// For a user that its authenticator shows as `account` of `issuer`.
    pub(super) fn new(secret: &[u8], issuer: &str, account: &str) -> Result<Self> {
        // A colon is between the two.
        let without_colon = |it: &str| it.replace(':', "_");
        let totp = Builder::new()
            .with_digits(DIGITS)
            .with_secret(secret)
            .with_issuer(Some(without_colon(issuer)))
            .with_account_name(without_colon(account))
            .build();
        let totp = totp.map_err(Failure::internal)?;
        let uri = totp.to_url().map_err(Failure::internal)?;
        let code = QrCode::with_error_correction_level(&uri, EcLevel::M);
        let code = code.map_err(Failure::internal)?;
        let qr = code.render::<svg::Color<'_>>().min_dimensions(240, 240).build();
        Ok(Self { uri, secret: totp.secret().to_base32(), qr })
    }
}

/// The step whose code this is, of the present one and its neighbours.
pub(super) fn matching_step(secret: &[u8], digits: u8, code: &str, now: Time) -> Option<i64> {
    let seconds = u64::try_from(now.micros() / 1_000_000).ok()?;
    let step = totp(secret, digits)?.check(code, seconds)?;
    i64::try_from(step).ok()
}

fn totp(secret: &[u8], digits: u8) -> Option<Totp> {
    // SHA-1, 30 seconds and one step to either side unless it is told otherwise.
    Builder::new().with_digits(digits).with_secret(secret).build().ok()
}

/// The code of a time, as an authenticator shows it.
#[cfg(test)]
pub(crate) fn code_at(secret: &[u8], digits: u8, time: Time) -> String {
    let seconds = u64::try_from(time.micros() / 1_000_000).unwrap();
    totp(secret, digits).unwrap().generate(seconds).to_string()
}

/// New recovery codes.
pub(super) fn new_recovery_codes() -> RecoveryCodes {
    let code = || {
        let bytes = Zeroizing::new(crate::secret::random::<RECOVERY_BYTES>());
        let text = totp_rs::Secret::from(&bytes[..]).to_base32();
        let groups: Vec<&str> =
            (0..text.len()).step_by(4).map(|it| &text[it..text.len().min(it + 4)]).collect();
        groups.join("-")
    };
    RecoveryCodes { recovery_codes: std::iter::repeat_with(code).take(RECOVERY_CODES).collect() }
}

/// A code as somebody typed it, without what is there for the eye only.
pub(super) fn plain(code: &str) -> Zeroizing<String> {
    let kept = code.chars().filter(|it| !it.is_whitespace() && *it != '-');
    Zeroizing::new(kept.map(|it| it.to_ascii_uppercase()).collect())
}

/// Whether a plain code is one by time, and not a recovery code.
pub(super) fn is_by_time(plain: &str) -> bool {
    plain.len() == usize::from(DIGITS) && plain.bytes().all(|it| it.is_ascii_digit())
}

/// What is stored of a recovery code.
pub(super) fn hash(plain: &str) -> Vec<u8> {
    Sha256::digest(plain.as_bytes()).to_vec()
}

/// Refuses what is sensitive to whoever has not just shown who it is.
///
/// # Errors
/// `step_up_required`.
pub fn require_fresh_proof(caller: &Caller, now: Time) -> Result<()> {
    match caller.proof() {
        // One that is from the future is none: clocks of nodes differ by less than that.
        Proof::Session { proved_at, .. }
            if now.since(proved_at) <= FRESH && proved_at.since(now) <= FRESH =>
        {
            Ok(())
        }
        _ => Err(Failure::new(
            Kind::Denied,
            "step_up_required",
            "this needs a login of the last five minutes, show again who you are",
        )),
    }
}

/// The same for whoever has logged in. Others have no login that they could repeat.
///
/// # Errors
/// `step_up_required`.
pub fn require_fresh_login(caller: &Caller, now: Time) -> Result<()> {
    match caller.proof() {
        Proof::Session { .. } => require_fresh_proof(caller, now),
        Proof::None | Proof::System | Proof::Setting | Proof::Key { .. } => Ok(()),
    }
}

/// How often users were wrong of late.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<(String, Ulid), Tried>);

#[derive(Debug)]
struct Tried {
    since: Time,
    count: u32,
    /// How often there was a pause since a code was right.
    pauses: u32,
    until: Option<Time>,
}

impl Tried {
    /// Whether it makes any difference.
    fn matters(&self, now: Time) -> bool {
        self.until.unwrap_or(self.since).max(self.since).after(LONGEST_PAUSE) > now
    }
}

impl Tries {
    /// Counts a try before it is looked at, so that those that come at once do not escape.
    ///
    /// # Errors
    /// `codes_refused` after too many.
    pub(super) fn begin(&mut self, tenant: &str, user: Ulid, now: Time) -> Result<()> {
        let who = (tenant.to_owned(), user);
        if !self.0.contains_key(&who) && self.0.len() >= MOST_USERS {
            self.make_room(now);
        }
        let new = Tried { since: now, count: 0, pauses: 0, until: None };
        let tried = self.0.entry(who).or_insert(new);
        if let Some(until) = tried.until.filter(|it| *it > now) {
            let minutes = until.since(now).as_secs() / 60 + 1;
            let detail = format!("too many wrong codes, try again in {minutes} min");
            return Err(Failure::new(Kind::Exhausted, "codes_refused", detail));
        }
        if tried.until.take().is_some() || now.since(tried.since) > WINDOW {
            (tried.since, tried.count) = (now, 0);
        }
        tried.count += 1;
        if tried.count == MOST_WRONG {
            // Twice as long each time: a code has six digits only.
            let pause = WINDOW.saturating_mul(1 << tried.pauses.min(8)).min(LONGEST_PAUSE);
            (tried.until, tried.pauses) = (Some(now.after(pause)), tried.pauses + 1);
        }
        Ok(())
    }

    /// Forgets the wrong codes of somebody who had a right one.
    pub(super) fn right(&mut self, tenant: &str, user: Ulid) {
        self.0.remove(&(tenant.to_owned(), user));
    }

    fn make_room(&mut self, now: Time) {
        self.0.retain(|_, it| it.matters(now));
        if self.0.len() >= MOST_USERS {
            let oldest = self.0.iter().min_by_key(|it| it.1.since).map(|it| it.0.clone());
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::{Clock, Grants};

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn codes_are_those_of_rfc_6238_appendix_b() {
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let step = seconds / 30;
            assert_eq!(code_at(secret, 8, at(seconds)), code);
            assert_eq!(matching_step(secret, 8, code, at(seconds)), Some(step), "{code}");
            // Six digits are the last six of eight.
            assert_eq!(matching_step(secret, 6, &code[2..], at(seconds)), Some(step), "{code}");
            for (away, is) in [(-60, false), (-30, true), (30, true), (60, false)] {
                let found = matching_step(secret, 8, code, at(seconds / 30 * 30 + 15 + away));
                assert_eq!(found.is_some(), is, "{code} {away}");
            }
        }
    }

    #[test]
    fn what_is_no_code_matches_nothing() {
        let secret = b"12345678901234567890";
        for bad in
            ["", "9428708", "942870820", "+4287082", " 4287082", "９４２８７０８２", "9428708x"]
        {
            assert_eq!(matching_step(secret, 8, bad, at(59)), None, "{bad}");
        }
        assert_eq!(matching_step(secret, 8, "94287082", at(-59)), None);
    }

    #[test]
    fn a_setup_can_be_read_by_authenticators() {
        let setup = FactorSetup::new(&[7; 20], "Model:yard", "ada@example.org").unwrap();
        let totp = Totp::from_url(&setup.uri).unwrap();
        assert_eq!((totp.digits(), totp.step(), totp.issuer()), (6, 30, Some("Model_yard")));
        assert_eq!(
            (totp.secret().as_bytes(), totp.account_name()),
            (&[7; 20][..], "ada@example.org")
        );
        assert_eq!(totp.secret().to_base32(), setup.secret);
        assert!(setup.qr.contains("<svg") && !setup.qr.contains("style"));
        assert_eq!(format!("{setup:?}"), "FactorSetup");
    }

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let codes = new_recovery_codes().recovery_codes;
        let first = &codes[0];
        assert_eq!((codes.len(), first.len()), (10, 32));
        assert_eq!(plain(&first.to_lowercase().replace('-', " ")), plain(first));
        assert!(!is_by_time(&plain(first)) && is_by_time(&plain(" 123 456 ")));
        assert_eq!(codes.iter().collect::<std::collections::HashSet<_>>().len(), 10);
    }

    #[test]
    fn a_proof_is_fresh_for_five_minutes() {
        let (clock, caller) =
            (Clock::fixed(at(1_000_000)), Caller::new("a", "t", "s", Grants::All));
        let code = |caller: &Caller| {
            require_fresh_proof(caller, clock.now()).map_err(|it| it.code().to_owned())
        };
        for proof in [Proof::None, Proof::System, Proof::Setting, Proof::Key { id: clock.ulid() }] {
            let caller = caller.clone().with_proof(proof, None);
            assert_eq!(code(&caller).unwrap_err(), "step_up_required");
            assert!(require_fresh_login(&caller, clock.now()).is_ok());
        }
        let (id, proved_at) = (clock.ulid(), clock.now());
        let caller = caller.with_proof(Proof::Session { id, proved_at, factor_at: None }, Some(id));
        clock.advance(FRESH);
        assert_eq!(code(&caller), Ok(()));
        clock.advance(Duration::from_micros(1));
        assert_eq!(code(&caller).unwrap_err(), "step_up_required");
        assert!(require_fresh_login(&caller, clock.now()).is_err());
    }

    #[test]
    fn the_sixth_wrong_code_is_refused_and_each_pause_is_longer() {
        let (mut tries, clock) = (Tries::default(), Clock::fixed(at(1_000_000)));
        let user = clock.ulid();
        for minutes in [5, 10, 20, 40, 60, 60] {
            for _ in 0..5 {
                tries.begin("t", user, clock.now()).unwrap();
            }
            clock.advance(Duration::from_secs(minutes * 60 - 1));
            let refused = tries.begin("t", user, clock.now()).unwrap_err();
            assert_eq!((refused.code(), refused.status().as_u16()), ("codes_refused", 429));
            clock.advance(Duration::from_secs(1));
        }
        tries.begin("t", user, clock.now()).unwrap();
        tries.begin("other", user, clock.now()).unwrap();
        tries.right("t", user);
        for _ in 0..5 {
            tries.begin("t", user, clock.now()).unwrap();
        }
        assert!(tries.begin("t", user, clock.now()).is_err());
    }

    #[test]
    fn wrong_codes_are_forgotten_with_time_and_take_no_more_room_than_they_may() {
        let (mut tries, clock) = (Tries::default(), Clock::fixed(at(1_000_000)));
        let user = clock.ulid();
        for _ in 0..20 {
            tries.begin("t", user, clock.now()).unwrap();
            clock.advance(WINDOW / 3);
        }
        for _ in 0..MOST_USERS + 10 {
            tries.begin("t", clock.ulid(), clock.now()).unwrap();
        }
        assert_eq!(tries.0.len(), MOST_USERS);
        clock.advance(LONGEST_PAUSE);
        tries.begin("t", clock.ulid(), clock.now()).unwrap();
        assert_eq!(tries.0.len(), 1);
    }
}
