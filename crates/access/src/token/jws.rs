//! The form of access tokens (RFC 7515, RFC 7519, RFC 9068), and nothing else of it: one algorithm, one
//! header, one set of claims. No I/O in this file.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modelyard_kernel::{Time, Ulid};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// Bytes of a token; ours have some 500.
const MAX_BYTES: usize = 4096;
/// How far clocks may be apart.
pub(super) const SKEW: Duration = Duration::from_secs(30);

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "at+jwt";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// The user.
    pub sub: Ulid,
    /// The session.
    pub sid: Ulid,
    /// The tenant.
    pub tid: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it ends, in seconds.
    pub exp: i64,
    /// The token.
    pub jti: Ulid,
}

/// Why a token is refused. For tests and the log; clients hear that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is no token of ours")]
    Form,
    #[error("its header is not that of our tokens")]
    Header,
    #[error("no such key signs")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims are not those of our tokens")]
    Claims,
    #[error("somebody else made it, or it is for somebody else")]
    Party,
    #[error("it has ended, or begins later")]
    Time,
}

/// A token that was taken apart, and of which nothing is known to be true yet.
#[derive(Debug)]
pub(super) struct Unproven<'a> {
    /// The key that is said to have signed it.
    pub(super) kid: String,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Unproven<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, Refused> {
        if text.len() > MAX_BYTES {
            return Err(Refused::Form);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Refused::Form)?;
        // One spelling only: no padding, no bits that say nothing.
        let decode = |it: &str| URL_SAFE_NO_PAD.decode(it).map_err(|_| Refused::Form);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let Header { alg, typ, kid } = object(&header).ok_or(Refused::Header)?;
        if alg != ALGORITHM || typ != TYPE {
            return Err(Refused::Header);
        }
        Ok(Self { kid, signed, payload, signature })
    }

    /// What it says, when the owner of `public` says it.
    pub(super) fn prove(self, public: &[u8]) -> Result<Claims, Refused> {
        let key = UnparsedPublicKey::new(&ED25519, public);
        let proven = key.verify(self.signed.as_bytes(), &self.signature);
        proven.map_err(|_| Refused::Signature)?;
        object(&self.payload).ok_or(Refused::Claims)
    }
}

/// An object with these members, each once, and no others.
fn object<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    // A list of the members in their order would be taken as well.
    bytes.first().filter(|it| **it == b'{')?;
    serde_json::from_slice(bytes).ok()
}

impl Claims {
    /// Whether it is ours, and its time.
    pub(super) fn check(&self, issuer: &str, audience: &str, now: Time) -> Result<(), Refused> {
        if self.iss != issuer || self.aud != audience {
            return Err(Refused::Party);
        }
        let (now, skew) = (now.micros().div_euclid(1_000_000), SKEW.as_secs().cast_signed());
        let ended = self.exp.saturating_add(skew) <= now;
        let begins_later = self.iat > now.saturating_add(skew);
        if ended || begins_later || self.exp <= self.iat {
            return Err(Refused::Time);
        }
        Ok(())
    }

    /// When it ends.
    pub fn ends_at(&self) -> Time {
        Time::from_micros(self.exp.saturating_mul(1_000_000))
    }
}

/// Signs claims; `sign` is given the bytes.
pub(super) fn write(kid: &str, claims: &Claims, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = Header { alg: ALGORITHM.to_owned(), typ: TYPE.to_owned(), kid: kid.to_owned() };
    let encode = |it: serde_json::Result<Vec<u8>>| {
        URL_SAFE_NO_PAD.encode(it.expect("texts and numbers can be written as JSON"))
    };
    let header = encode(serde_json::to_vec(&header));
    let signed = format!("{header}.{}", encode(serde_json::to_vec(claims)));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}
