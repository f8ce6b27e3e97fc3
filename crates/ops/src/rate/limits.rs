//! Which limits a request is counted by: those of its route, or the default ones, and a quota of all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::counting::MOST_LIMITS;
use super::model::{NotAPolicy, Per, Policy};

/// Limits as somebody writes them down, read by [`RateLimiting::read`].
///
/// ```
/// use modelyard_ops::rate::RateLimiting;
///
/// RateLimiting::new(["100/minute", "1000/hour"])
///     .endpoint("/api/v1/ml/$train", ["10/hour", "50/day"])
///     .quota("100000/month");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimiting {
    /// Of requests whose endpoint has none of its own.
    pub default: Vec<String>,
    /// By the path of an endpoint, such as `/api/v1/configs/{id}`.
    pub endpoints: BTreeMap<String, Vec<String>>,
    /// Of all requests together.
    pub quota: Option<String>,
    /// Whose requests are counted together by limits that do not say.
    pub per: Per,
}

impl RateLimiting {
    /// Limits for every endpoint that has none of its own.
    pub fn new(default: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { default: default.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Limits of an endpoint, instead of the default ones.
    #[must_use]
    pub fn endpoint(
        mut self,
        path: &str,
        limits: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let limits = limits.into_iter().map(Into::into).collect();
        self.endpoints.insert(path.to_owned(), limits);
        self
    }

    /// What everything together may come to, such as `100000/month`.
    #[must_use]
    pub fn quota(mut self, quota: &str) -> Self {
        self.quota = Some(quota.to_owned());
        self
    }

    /// Whose requests are counted together by limits that do not say.
    #[must_use]
    pub fn per(self, per: Per) -> Self {
        Self { per, ..self }
    }

    /// With what somebody else says of the same, who is right: each key by itself, and each endpoint.
    #[must_use]
    pub fn overruled_by(self, other: &Self) -> Self {
        let Self { default, mut endpoints, quota, per } = self;
        endpoints.extend(other.endpoints.clone());
        Self {
            default: if other.default.is_empty() { default } else { other.default.clone() },
            endpoints,
            quota: other.quota.clone().or(quota),
            per: if other.per == Per::default() { per } else { other.per },
        }
    }

    /// The limits of a service with this id.
    ///
    /// # Errors
    /// Names the first that is none.
    pub fn read(&self, service: &str) -> Result<Limits, LimitsError> {
        let quota = self.quota.as_deref();
        let quota = quota.map(|text| Policy::quota(text).map_err(|why| wrong("quota", text, why)));
        let quota: Vec<Limit> = match quota.transpose()? {
            Some(policy) => vec![self.limit(service, "*", "quota".to_owned(), policy)],
            None => Vec::new(),
        };
        let class = |class: &str, name: &str, texts: &[String]| {
            if texts.len() + quota.len() > MOST_LIMITS {
                return Err(LimitsError::TooMany(class.to_owned()));
            }
            let mut limits = Vec::with_capacity(texts.len() + quota.len());
            for (n, text) in (1..).zip(texts) {
                let policy = text.parse().map_err(|why| wrong(class, text, why))?;
                let name = if n == 1 { name.to_owned() } else { format!("{name}-{n}") };
                limits.push(self.limit(service, class, name, policy));
            }
            limits.extend(quota.iter().cloned());
            Ok(Arc::from(limits))
        };
        let endpoints = self.endpoints.iter();
        let endpoints =
            endpoints.map(|(path, texts)| Ok((path.clone(), class(path, "endpoint", texts)?)));
        Ok(Limits {
            default: class("default", "default", &self.default)?,
            endpoints: endpoints.collect::<Result<_, _>>()?,
        })
    }

    fn limit(&self, service: &str, class: &str, name: String, policy: Policy) -> Limit {
        let per = policy.per().unwrap_or(self.per);
        let prefix = format!("modelyard:rate:{service}:{class}:{policy}:{}:", per.name());
        Limit { name, prefix, per, policy }
    }
}

fn wrong(of: &str, text: &str, why: NotAPolicy) -> LimitsError {
    LimitsError::Wrong { of: of.to_owned(), text: text.chars().take(64).collect(), why }
}

/// Limits that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One of them is none.
    #[error("`{text}` of `{of}` is no limit: {why}")]
    Wrong {
        /// An endpoint, `default` or `quota`.
        of: String,
        /// What it is.
        text: String,
        /// What is wrong with it.
        why: NotAPolicy,
    },
    /// There are too many.
    #[error("`{0}` has more than {MOST_LIMITS} limits")]
    TooMany(String),
}

/// One limit of a service.
#[derive(Clone, Debug)]
pub struct Limit {
    /// What clients know it by.
    pub name: String,
    /// What it says.
    pub policy: Policy,
    per: Per,
    /// With what the names of those begin whom it counts.
    prefix: String,
}

impl Limit {
    /// The name of whom it counts, if it counts this one.
    pub(super) fn key(&self, who: &Who<'_>) -> Option<String> {
        let mut key = String::with_capacity(self.prefix.len() + 48);
        key.push_str(&self.prefix);
        let known = match self.per {
            Per::User => Some(who.subject.filter(|_| who.is_user)?),
            Per::Key => Some(who.subject.filter(|_| !who.is_user)?),
            Per::Tenant => who.tenant,
            Per::Address => None,
            Per::Caller => who.subject,
        };
        match (known, who.address) {
            (Some(known), _) => key.push_str(known),
            // Writing to a text does not fail.
            (None, Some(address)) => drop(write!(key, "@{}", Network(address))),
            (None, None) => key.push('@'),
        }
        Some(key)
    }
}

/// An address as it is counted: whoever has an IPv6 address has 2⁶⁴ of them.
struct Network(IpAddr);

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(it) => write!(f, "{it}"),
            IpAddr::V6(it) => {
                let [a, b, c, d, ..] = it.segments();
                write!(f, "{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

/// The limits of a service.
#[derive(Clone, Debug)]
pub struct Limits {
    default: Arc<[Limit]>,
    endpoints: BTreeMap<String, Arc<[Limit]>>,
}

impl Limits {
    /// Those of an endpoint, by its path; of what is no endpoint, the default ones.
    pub fn of(&self, endpoint: Option<&str>) -> &Arc<[Limit]> {
        endpoint.and_then(|it| self.endpoints.get(it)).unwrap_or(&self.default)
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.default.is_empty() && self.endpoints.values().all(|it| it.is_empty())
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    /// The user or key, when it is known.
    pub subject: Option<&'a str>,
    /// Whether that is a user.
    pub is_user: bool,
    /// Whose data it may see, when it is known.
    pub tenant: Option<&'a str>,
    /// Where it asks from.
    pub address: Option<IpAddr>,
}
