//! What a mailed link is. No I/O in this file.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use modelyard_kernel::form::Node;
use modelyard_kernel::words;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::hidden::short_text;
use crate::mail::{INVITATION_DAYS, RESET_MINUTES};

/// Bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Characters of a mail address: RFC 5321 has no more.
const ADDRESS_CHARS: usize = 254;
/// Characters of a name.
const NAME_CHARS: usize = 200;
/// Characters of what might be a password; which it may be is the business of the accounts.
const PASSWORD_CHARS: usize = 1024;

words! {
    /// What a link is for.
    LinkPurpose {
        /// To come in for the first time.
        Invitation = "invitation",
        /// To set a password instead of one that was forgotten.
        Reset = "reset",
    }
}

impl LinkPurpose {
    /// For how long such a link is good.
    pub(super) fn lifetime(self) -> Duration {
        match self {
            Self::Invitation => Duration::from_secs(INVITATION_DAYS * 24 * 60 * 60),
            Self::Reset => Duration::from_secs(RESET_MINUTES * 60),
        }
    }
}

/// What somebody was mailed: 256 random bits, of which the database has the hash only.
pub(super) struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    pub(super) fn new() -> Self {
        let bytes = Zeroizing::new(crate::secret::random::<TOKEN_BYTES>());
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
    }

    /// As it is mailed.
    pub(super) fn text(&self) -> String {
        self.0.to_string()
    }

    pub(super) fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_bytes()).to_vec()
    }

    /// Whatever somebody says is one.
    fn read(node: &Node<'_>) -> Option<Self> {
        Some(Self(Zeroizing::new(short_text(node, 100)?)))
    }
}

/// What sets a password instead of one that was forgotten.
#[derive(Debug)]
pub struct Reset {
    pub(super) token: Token,
    pub(super) password: Password,
}

/// What takes an invitation.
#[derive(Debug)]
pub struct Acceptance {
    pub(super) token: Token,
    pub(super) name: String,
    pub(super) password: Password,
}

/// Not for the log.
pub(super) struct Password(pub(super) Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    fn read(node: &Node<'_>) -> Option<Self> {
        let text = node.str()?;
        if text.chars().count() > PASSWORD_CHARS {
            node.fail_rule(format!("it has at most {PASSWORD_CHARS} characters"));
            return None;
        }
        Some(Self(Zeroizing::new(text.to_owned())))
    }
}

impl Reset {
    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let token = object.required("token").and_then(|it| Token::read(&it));
        let password = object.required("password").and_then(|it| Password::read(&it));
        Some(Self { token: token?, password: password? })
    }
}

impl Acceptance {
    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let token = object.required("token").and_then(|it| Token::read(&it));
        let name = object.required("name").and_then(|it| short_text(&it, NAME_CHARS));
        let password = object.required("password").and_then(|it| Password::read(&it));
        Some(Self { token: token?, name: name?, password: password? })
    }
}

/// A mail address as accounts have it.
pub(super) fn read_address(node: &Node<'_>) -> Option<String> {
    let address = short_text(node.object()?.required("email").as_ref()?, ADDRESS_CHARS)?;
    Some(address.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_256_random_bits() {
        let (one, other) = (Token::new(), Token::new());
        assert_eq!(one.text().len(), 43);
        assert_ne!(one.text(), other.text());
        assert_eq!((one.hash().len(), format!("{one:?}").as_str()), (32, "Token"));
    }
}
