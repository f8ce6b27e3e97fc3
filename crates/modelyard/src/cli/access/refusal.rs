//! Why a command about access did nothing, and what to do next.

use std::fmt;

use modelyard_access::role::{Binding, EVERYWHERE};
use modelyard_access::user::Email;
use modelyard_kernel::form::{Loc, Violation};
use modelyard_kernel::{Failure, Ulid};

use crate::cli::jobs::printable;

#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("`{}` is no e-mail address, which is like `ada@example.org`", printable(.0))]
    NoAddress(String),
    #[error("there is no user with the address {0}; `modelyard user list` shows who there is")]
    AddressMissing(Email),
    #[error("`{}` is neither an e-mail address nor an id; `modelyard user list` shows both", printable(.0))]
    NeitherAddressNorId(String),
    #[error(
        "{0} is the id of no user and of no key; `modelyard user list` and `modelyard key list` show \
         theirs"
    )]
    SubjectMissing(Ulid),
    #[error(
        "it has no role `{}` {}; `modelyard role bindings {subject}` shows those that it has",
        binding.role, place(binding)
    )]
    Unbound { binding: Binding, subject: String },
    #[error(
        "nobody can be invited without mail: set `mail.host` (see docs/settings.md), or give the user a \
         password of your choice with `--password-file`"
    )]
    NoMail,
    #[error("these are two passwords; type the same one twice")]
    TwoPasswords,
    #[error("the password cannot be read")]
    Unreadable(#[from] std::io::Error),
    #[error("{}", Told(.0))]
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where somebody has a role.
pub(super) fn place(binding: &Binding) -> String {
    match binding.applies_to.as_str() {
        EVERYWHERE => "everywhere".to_owned(),
        service => format!("in `{service}`"),
    }
}

/// A failure in the words of the command line.
struct Told<'a>(&'a Failure);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(failure) = self;
        match failure.violated() {
            [] => write!(f, "{failure}")?,
            violations => {
                for (index, it) in violations.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    f.write_str(&sentence(it))?;
                }
            }
        }
        match next(failure.code()) {
            Some(next) => write!(f, "; {next}"),
            None => Ok(()),
        }
    }
}

/// What a violation says, with the argument that it is about.
fn sentence(it: &Violation) -> String {
    let said = it.msg.strip_prefix("Value error, ").unwrap_or(&it.msg);
    let said = printable(said);
    let argument = it.loc.iter().find_map(|it| match it {
        Loc::Key(key) => argument(key),
        Loc::Index(_) => None,
    });
    argument.map_or_else(|| said.to_string(), |it| format!("{it}: {said}"))
}

/// The argument that has what a request's body has by this name.
fn argument(field: &str) -> Option<&'static str> {
    Some(match field {
        "email" => "--email",
        "name" => "the name",
        "role" => "the role",
        "applies_to" => "--service",
        "scopes" => "--scope",
        "addresses" => "--address",
        "per_minute" => "--per-minute",
        "expires_at" => "--expires-in",
        "overlap_seconds" => "--overlap",
        "description" => "--description",
        "permissions" => "--permission",
        "inherits" => "--inherits",
        _ => return None,
    })
}

/// What to do next, where the failure itself does not say it or says it for HTTP.
fn next(code: &str) -> Option<&'static str> {
    Some(match code {
        "user_missing" | "email_taken" => "`modelyard user list` shows who there is",
        "key_missing" | "invalid_ulid" => "`modelyard key list` shows the keys by their ids",
        "role_missing" => "`modelyard role list` shows the roles",
        "role_taken" => "take another name, or delete it first with `modelyard role delete`",
        "role_bound" => "`modelyard role unbind` does",
        "users_exist" => "`modelyard user create` makes more of them",
        "user_active" => "`modelyard user list` shows who waits for an invitation",
        "factor_missing" => "there is nothing to take away",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_violation_is_told_with_its_argument() {
        let violation = |at: &[&str], said: &str| {
            let loc = at.iter().map(|it| Loc::from(*it)).collect();
            Violation::new("value_error", loc, said, &json!("x"), None)
        };
        let failure = Failure::violations(vec![
            violation(&["body", "addresses"], "Value error, `x` is no network"),
            violation(&["body"], "There is no role `\u{1b}[2J`"),
        ]);
        let told = Refusal::from(failure).to_string();
        assert_eq!(told, "--address: `x` is no network\nThere is no role `\u{fffd}[2J`");
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let failure = Failure::missing("role_missing", "there is no role `x`");
        let told = Refusal::from(failure).to_string();
        assert_eq!(told, "there is no role `x`; `modelyard role list` shows the roles");
    }
}
