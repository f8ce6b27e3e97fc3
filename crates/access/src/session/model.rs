//! What a session is, and what it shows. No I/O in this file.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modelyard_kernel::form::Node;
use modelyard_kernel::{Time, Ulid, columns, entity_id, words};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::password::Password;
use crate::secret::random;
use crate::user::UserId;

/// What a refresh token begins with, so that those who look for lost secrets find it.
const REFRESH_PREFIX: &str = "myr_";
/// Characters of what a browser says it is.
const MAX_AGENT: usize = 200;

entity_id!(
    /// The id of a session.
    SessionId
);

words! {
    /// What a session is shown by.
    SessionKind {
        /// A cookie: a browser.
        Cookie = "cookie",
        /// Tokens: a program.
        Token = "token",
    }
}

/// How long sessions last, and where browsers find this deployment.
#[derive(Clone, Debug)]
pub struct Options {
    /// A browser's session ends when nobody was there for so long.
    pub idle: Duration,
    /// Every session ends after so long.
    pub absolute: Duration,
    /// A refresh token can be used for so long.
    pub refresh: Duration,
    /// Whether a proxy in front does TLS: cookies are for TLS only then.
    pub tls_by_proxy: bool,
    /// Where browsers find this deployment, such as `https://models.example.org`, when that is not what
    /// they say in `Host`; and whose pages may use its cookies.
    pub origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            idle: Duration::from_secs(8 * HOUR),
            absolute: Duration::from_secs(30 * 24 * HOUR),
            refresh: Duration::from_secs(30 * 24 * HOUR),
            tls_by_proxy: false,
            origins: Vec::new(),
        }
    }
}

/// A session.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub id: SessionId,
    /// Whose it is.
    #[serde(skip)]
    pub user_id: UserId,
    /// What it is shown by.
    pub kind: SessionKind,
    /// Where it began.
    #[schema(example = "203.0.113.7")]
    pub address: String,
    /// What began it, in its own words.
    pub user_agent: String,
    /// When a second factor was last shown, if it was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub factor_at: Option<Time>,
    /// When the user last proved who it is.
    #[schema(value_type = String, format = DateTime)]
    pub proved_at: Time,
    /// When it was last used, to the minute.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Time,
    /// When it ends at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Time,
    /// When it was ended, if it was.
    #[serde(skip)]
    pub revoked_at: Option<Time>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
}

columns!(Session: id, user_id, kind, address, user_agent, factor_at, proved_at, last_seen_at,
    expires_at, revoked_at, created_at);

impl Session {
    /// Whether it may be used.
    pub(super) fn is_alive(&self, options: &Options, now: Time) -> bool {
        // A program has its refresh token, which it may use once a week.
        let idle = match self.kind {
            SessionKind::Cookie => self.last_seen_at.after(options.idle) <= now,
            SessionKind::Token => false,
        };
        self.revoked_at.is_none() && self.expires_at > now && !idle
    }
}

/// A secret text. It is never shown, and wiped from memory when it is dropped; on the wire it is as it is.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The value of a new cookie: 256 random bits.
    pub(super) fn cookie() -> Self {
        Self::new(URL_SAFE_NO_PAD.encode(*Zeroizing::new(random::<32>())))
    }

    /// A new refresh token: 256 random bits.
    pub(super) fn refresh() -> Self {
        Self::new(format!("{REFRESH_PREFIX}{}", &*Self::cookie().0))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The hash of a cookie's value as it is kept; `None` when it cannot be one.
pub(super) fn cookie_hash(text: &str) -> Option<Vec<u8>> {
    bits(text).map(|it| digest(&SHA256, &it).as_ref().to_vec())
}

/// The same for a refresh token.
pub(super) fn refresh_hash(text: &str) -> Option<Vec<u8>> {
    cookie_hash(text.strip_prefix(REFRESH_PREFIX)?)
}

fn bits(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // 32 bytes are 43 characters.
    let bits = (text.len() == 43).then(|| URL_SAFE_NO_PAD.decode(text).ok())?;
    bits.map(Zeroizing::new)
}

/// What a page of ours shows besides the cookie, which pages of others cannot: it is made with the cookie,
/// which no script can read.
pub(super) fn csrf_token(cookie: &str, session: Ulid) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(hmac::sign(&csrf_key(cookie)?, &csrf_message(session))))
}

/// Whether a text is that token. Takes as long whatever is wrong with it.
pub(super) fn is_csrf_token(cookie: &str, session: Ulid, said: &str) -> bool {
    let (Some(key), Ok(said)) = (csrf_key(cookie), URL_SAFE_NO_PAD.decode(said)) else {
        return false;
    };
    hmac::verify(&key, &csrf_message(session), &said).is_ok()
}

fn csrf_key(cookie: &str) -> Option<hmac::Key> {
    Some(hmac::Key::new(hmac::HMAC_SHA256, &bits(cookie)?))
}

fn csrf_message(session: Ulid) -> Vec<u8> {
    format!("csrf:{session}").into_bytes()
}

/// A login.
#[derive(Debug)]
pub struct Login {
    /// The address, as it was typed.
    pub email: String,
    /// The password.
    pub password: Password,
    /// What a second factor shows.
    pub code: Option<String>,
    /// What the session is to be shown by.
    pub kind: SessionKind,
}

impl Login {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let email = object.required("email").and_then(|it| it.string());
        let password = object.required("password").and_then(|it| it.string()).map(Password::new);
        let code = match object.optional("code") {
            Some(it) => it.string().map(Some),
            None => Some(None),
        };
        let kind = match object.optional("cookie").map(|it| it.bool()) {
            None | Some(Some(false)) => Some(SessionKind::Token),
            Some(Some(true)) => Some(SessionKind::Cookie),
            Some(None) => None,
        };
        Some(Self { email: email?, password: password?, code: code?, kind: kind? })
    }
}

/// What a client says that it is, as it is kept.
pub(super) fn agent(said: Option<&str>) -> String {
    let visible = said.unwrap_or_default().chars().filter(|it| !it.is_control());
    visible.take(MAX_AGENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_one_spelling() {
        let cookie = Token::cookie();
        assert_eq!(cookie.as_str().len(), 43);
        assert_eq!(cookie_hash(cookie.as_str()).unwrap().len(), 32);
        let refresh = Token::refresh();
        assert!(refresh.as_str().starts_with("myr_"));
        assert!(refresh_hash(refresh.as_str()).is_some());
        assert!(refresh_hash(&refresh.as_str()[4..]).is_none());
        assert!(cookie_hash(refresh.as_str()).is_none());
        for bad in ["", "x", &"A".repeat(42), &"A".repeat(44), &"=".repeat(43), &"B".repeat(43)] {
            assert!(cookie_hash(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{cookie:?}"), "Token");
    }

    #[test]
    fn a_csrf_token_is_of_one_session_and_cookie() {
        let (cookie, other) = (Token::cookie(), Token::cookie());
        let session = Ulid::read("01M7W2GJGNPH03KT3S3W4GRB46").unwrap();
        let another = Ulid::read("01M7W2GJGNPH03KT3S3W4GRB47").unwrap();
        let token = csrf_token(cookie.as_str(), session).unwrap();
        assert!(is_csrf_token(cookie.as_str(), session, &token));
        assert!(!is_csrf_token(cookie.as_str(), another, &token));
        assert!(!is_csrf_token(other.as_str(), session, &token));
        assert!(!is_csrf_token(cookie.as_str(), session, ""));
        assert!(!is_csrf_token("", session, &token));
    }
}
