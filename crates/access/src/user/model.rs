//! What a user is, and when logging in has failed too often. No I/O in this file.

use std::fmt;

use modelyard_kernel::db::{FromRow, FromValue, Result as DbResult, Row, Value};
use modelyard_kernel::form::Node;
use modelyard_kernel::{Time, columns, entity_id, words};
use serde::Serialize;
use utoipa::ToSchema;

use crate::hidden::short_text;
use crate::password::Password;

/// Characters of a name.
const MAX_NAME: usize = 200;
/// Characters of an address (RFC 5321), and of what is before its `@`.
const MAX_EMAIL: usize = 254;
const MAX_LOCAL: usize = 64;

entity_id!(
    /// The id of a user.
    UserId
);

words! {
    /// Whether a user may log in.
    UserStatus {
        /// Not before it has chosen a password.
        Invited = "invited",
        /// Yes.
        Active = "active",
        /// No, until somebody enables it.
        Disabled = "disabled",
    }
}

/// An e-mail address in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Reads an address; `None` when it is none. Only what every mail server takes is taken: ASCII,
    /// without quotes and comments.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, host) = text.split_once('@')?;
        let dots = |it: &str, allowed: fn(char) -> bool| {
            it.split('.').all(|part| !part.is_empty() && part.chars().all(allowed))
        };
        let in_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        let in_host = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let hyphens = host.split('.').any(|it| it.starts_with('-') || it.ends_with('-'));
        let fits = text.len() <= MAX_EMAIL
            && local.len() <= MAX_LOCAL
            && dots(local, in_local)
            && dots(host, in_host)
            && !hyphens;
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Email> for Value {
    fn from(it: &Email) -> Self {
        it.as_str().into()
    }
}

impl FromValue for Email {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).map(Self)
    }
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    /// Its id.
    #[schema(value_type = String, example = "01M7W2GJGNPH03KT3S3W4GRB46")]
    pub id: UserId,
    /// Its address, in lower case; what it logs in with.
    #[schema(value_type = String, example = "ada@example.org")]
    pub email: Email,
    /// What it is called.
    #[schema(example = "Ada Lovelace")]
    pub name: String,
    /// Whether it may log in.
    pub status: UserStatus,
    /// Whether it may do nothing before it has set up a second factor.
    pub factor_required: bool,
    /// When it last logged in, if it did.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_login_at: Option<Time>,
    /// How often it was changed.
    #[serde(skip)]
    pub revision: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Time,
}

columns!(User: id, email, name, status, factor_required, last_login_at, revision, created_at,
    updated_at);

impl User {
    /// Its entity tag. Logging in does not change it.
    pub fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.id, self.created_at.micros(), self.revision)
    }
}

/// A user to be stored.
#[derive(Debug)]
pub struct NewUser {
    /// Its address.
    pub email: Email,
    /// What it is called.
    pub name: String,
    /// Its password; without one it is invited.
    pub password: Option<Password>,
    /// Whether it may do nothing before it has set up a second factor.
    pub factor_required: bool,
}

impl NewUser {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let email = object.required("email").and_then(|it| read_email(&it));
        let name = object.required("name").and_then(|it| read_name(&it));
        let password = match object.optional("password") {
            Some(it) => it.string().map(|it| Some(Password::new(it))),
            None => Some(None),
        };
        let factor_required = match object.optional("factor_required") {
            Some(it) => it.bool(),
            None => Some(false),
        };
        let (email, name) = (email?, name?);
        Some(Self { email, name, password: password?, factor_required: factor_required? })
    }
}

/// What is to change of a user.
#[derive(Debug, Default)]
pub struct UserPatch {
    /// What it is called.
    pub name: Option<String>,
    /// Whether it may do nothing before it has set up a second factor.
    pub factor_required: Option<bool>,
}

impl UserPatch {
    /// Reads a request's body.
    pub fn read(node: Node<'_>) -> Option<Self> {
        let object = node.object()?;
        let name = match object.optional("name") {
            Some(it) => read_name(&it).map(Some),
            None => Some(None),
        };
        let factor_required = match object.optional("factor_required") {
            Some(it) => it.bool().map(Some),
            None => Some(None),
        };
        Some(Self { name: name?, factor_required: factor_required? })
    }
}

fn read_email(node: &Node<'_>) -> Option<Email> {
    let email = Email::read(node.str()?);
    if email.is_none() {
        node.fail_rule("An e-mail address is like `ada@example.org`");
    }
    email
}

pub(super) fn read_name(node: &Node<'_>) -> Option<String> {
    short_text(node, MAX_NAME)
}

/// A name as it is kept; `None` when it is none.
pub(super) fn valid_name(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = !name.is_empty() && name.chars().count() <= MAX_NAME;
    (fits && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// What logging in needs to know of a user.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) id: UserId,
    pub(crate) email: Email,
    pub(crate) status: UserStatus,
    pub(crate) password_hash: Option<String>,
    /// Stays when only the hash is made anew.
    pub(crate) password_changed_at: Option<Time>,
    pub(crate) last_login_at: Option<Time>,
}

impl Credentials {
    pub(super) const COLUMNS: &'static str =
        "id, email, status, password_hash, password_changed_at, last_login_at";

    /// Whether it may log in with the right password.
    pub(crate) fn may_log_in(&self) -> bool {
        self.status == UserStatus::Active
    }
}

impl FromRow for Credentials {
    fn from_row(mut row: Row) -> DbResult<Self> {
        Ok(Self {
            id: row.take("id")?,
            email: row.take("email")?,
            status: row.take("status")?,
            password_hash: row.take("password_hash")?,
            password_changed_at: row.take("password_changed_at")?,
            last_login_at: row.take("last_login_at")?,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_in_lower_case() {
        for (text, kept) in [
            ("Ada.Lovelace+x@Example.ORG", Some("ada.lovelace+x@example.org")),
            (" admin@localhost ", Some("admin@localhost")),
            ("o'neill@mail.example.org", Some("o'neill@mail.example.org")),
            ("", None),
            ("ada", None),
            ("@example.org", None),
            ("ada@", None),
            ("ada@@example.org", None),
            ("a da@example.org", None),
            ("ada@exa mple.org", None),
            ("ada.@example.org", None),
            (".ada@example.org", None),
            ("ada@example..org", None),
            ("ada@-example.org", None),
            ("ada@example.org\nbcc: x@y.org", None),
            ("\"ada\"@example.org", None),
            ("Ada <ada@example.org>", None),
            ("ada@exämple.org", None),
            (&format!("{}@example.org", "a".repeat(65)), None),
            (&format!("a@{}.org", "a.".repeat(150)), None),
        ] {
            let read = Email::read(text);
            assert_eq!(read.as_ref().map(Email::as_str), kept, "{text}");
        }
    }
}
