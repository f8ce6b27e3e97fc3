//! What mails look like.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior, Value};
use modelyard_kernel::{Failure, Result, Time};
use url::Url;

use super::Letter;

/// For how long a link that resets a password is good.
pub const RESET_MINUTES: u64 = 60;
/// For how long an invitation is good.
pub const INVITATION_DAYS: u64 = 7;

/// Characters of what users call themselves and their programs that a mail shows.
const SHOWN: usize = 200;

/// The text and the HTML of each letter. The text begins with the subject.
macro_rules! templates {
    ($($name:literal)+) => {
        [$((concat!($name, ".txt"), include_str!(concat!("templates/", $name, ".txt"))),
           (concat!($name, ".html"), include_str!(concat!("templates/", $name, ".html")))),+]
    };
}

const TEMPLATES: [(&str, &str); 10] =
    templates!("invitation" "password_reset" "new_login" "factor_changed" "password_changed");
/// What is around the HTML of each.
const LAYOUT: (&str, &str) = ("layout.html", include_str!("templates/layout.html"));

impl Letter {
    /// The name of its templates.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Letter::Invitation { .. } => "invitation",
            Letter::PasswordReset { .. } => "password_reset",
            Letter::NewLogin { .. } => "new_login",
            Letter::FactorChanged { .. } => "factor_changed",
            Letter::PasswordChanged { .. } => "password_changed",
        }
    }

    /// What its templates speak of.
    pub(super) fn values(&self, public_url: &Url) -> BTreeMap<String, String> {
        let pairs = match self {
            Letter::Invitation { token } => vec![
                ("link", link(public_url, "accept-invitation", token)),
                ("days", INVITATION_DAYS.to_string()),
            ],
            Letter::PasswordReset { token } => vec![
                ("link", link(public_url, "reset-password", token)),
                ("minutes", RESET_MINUTES.to_string()),
            ],
            Letter::NewLogin { at, address, user_agent } => vec![
                ("at", shown(*at)),
                ("address", clean(address)),
                ("user_agent", clean(user_agent)),
            ],
            Letter::FactorChanged { change, at } => {
                vec![("change", (*change).to_owned()), ("at", shown(*at))]
            }
            Letter::PasswordChanged { at } => vec![("at", shown(*at))],
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// After which it is better not sent.
    pub(super) fn is_of_use_for(&self) -> Option<Duration> {
        match self {
            Letter::PasswordReset { .. } => Some(Duration::from_secs(RESET_MINUTES * 60)),
            _ => None,
        }
    }
}

/// A page of ours that is given a token. It is behind the `#`, which browsers tell no server.
fn link(public_url: &Url, page: &str, token: &str) -> String {
    let mut link = public_url.clone();
    if let Ok(mut path) = link.path_segments_mut() {
        path.pop_if_empty().push(page);
    }
    link.set_query(None);
    link.set_fragment(Some(&format!("token={token}")));
    link.into()
}

fn shown(at: Time) -> String {
    format!("{} UTC", at.to_seconds().replace('T', " "))
}

/// What users have written, on one line and not too long.
pub(super) fn clean(text: &str) -> String {
    let line = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    line.take(SHOWN).collect::<String>().trim().to_owned()
}

/// A letter with its values in it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

/// Those that are part of the program.
pub(super) struct Templates(Environment<'static>);

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Templates")
    }
}

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in TEMPLATES.into_iter().chain([LAYOUT]) {
            environment.add_template(name, source).expect("a test reads all of them");
        }
        Self(environment)
    }

    pub(super) fn render(
        &self,
        template: &str,
        product: &str,
        name: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Rendered> {
        let render = |kind: &str| {
            let mut all = values.clone();
            all.insert("product".to_owned(), product.to_owned());
            all.insert("name".to_owned(), name.to_owned());
            // Values are escaped where the name of a template ends in `.html`.
            let template = self.0.get_template(&format!("{template}.{kind}"))?;
            template.render(Value::from(all))
        };
        let text = render("txt").map_err(Failure::internal)?;
        let (subject, text) = text.split_once("\n\n").unwrap_or_default();
        let html = render("html").map_err(Failure::internal)?;
        Ok(Rendered { subject: subject.to_owned(), text: text.to_owned(), html })
    }
}
