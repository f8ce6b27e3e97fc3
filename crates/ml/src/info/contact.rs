//! The checked texts inside a service's metadata: addresses on the web and by mail.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::Url;

use super::InfoError;

/// The longest address that chapkit's clients accept, in characters.
const MAX_URL: usize = 2083;

/// An `http` or `https` address in its normal form: `https://example.com` becomes
/// `https://example.com/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for HttpUrl {
    type Err = InfoError;

    fn from_str(text: &str) -> Result<HttpUrl, InfoError> {
        let url = Url::parse(text.trim()).ok();
        match url {
            // The parser gives every http address a host, so the scheme decides.
            Some(url)
                if matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_URL =>
            {
                Ok(HttpUrl(url))
            }
            _ => Err(InfoError::Url(text.to_owned())),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A mail address of the usual shape, its domain in lower case. Nobody checks that it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = InfoError;

    fn from_str(text: &str) -> Result<Email, InfoError> {
        let wrong = || InfoError::Email(text.to_owned());
        let (local, domain) = text.trim().rsplit_once('@').ok_or_else(wrong)?;
        if is_local_part(local) && is_domain(domain) && local.len() + domain.len() < 254 {
            Ok(Email(format!("{local}@{}", domain.to_lowercase())))
        } else {
            Err(wrong())
        }
    }
}

impl Serialize for Email {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is_local_part(local: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(allowed))
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let named_top =
        domain.rsplit_once('.').is_some_and(|(_, top)| top.chars().any(char::is_alphabetic));
    named_top && domain.split('.').all(label)
}
