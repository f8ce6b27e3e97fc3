//! How often somebody may ask: what limits say, as HTTP has it.
//!
//! A layer behind the authenticator, since most limits count by who asks. Answers of what is limited say
//! what is left, in the fields of draft-ietf-httpapi-ratelimit-headers and in the older `X-RateLimit-…`.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use modelyard_kernel::{Caller, ClientAddress, Failure, Kind};
use modelyard_ml::project::suggest::hint;
use modelyard_ops::rate::model::Rule;
use modelyard_ops::rate::{
    Decision, Left, Limit, Limiter, Limits, LimitsError, Period, RateLimiting, Who,
};
use tower::{Layer, Service};

use super::auth::ANONYMOUS;
use crate::permissions::{self, below_service};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The fields for the document: name, meaning and type.
pub(crate) const FIELDS: [(&str, &str, &str); 5] = [
    ("ratelimit-policy", "Each limit: what it allows (`q`) in how many seconds (`w`).", "string"),
    (
        "ratelimit",
        "Of each limit what is left (`r`), and in how many seconds all is (`t`).",
        "string",
    ),
    ("x-ratelimit-limit", "What the limit allows that ends first.", "integer"),
    ("x-ratelimit-remaining", "What is left of it.", "integer"),
    ("x-ratelimit-reset", "In how many seconds all of it is there again.", "integer"),
];

/// Those who watch over a service must reach it, however much is asked. What is below them, too.
const NEVER: [&str; 2] = ["/health", "/metrics"];

/// Whether requests for a path of a service may be limited.
pub(crate) fn is_limitable(path: &str) -> bool {
    !NEVER.iter().any(|it| {
        path.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Limits that no service can have.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
    /// One of them is none.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// There is no such endpoint.
    #[error("there is no endpoint `{path}` to limit{hint}")]
    Unknown {
        /// What was said.
        path: String,
        /// What was probably meant.
        hint: String,
    },
    /// It is never limited.
    #[error("`{0}` is never limited: those who watch over a service must reach it")]
    Never(String),
}

/// Checks the path of an endpoint.
///
/// # Errors
/// Says what was probably meant.
pub(crate) fn check_endpoint(path: &str) -> Result<(), RateError> {
    let paths = || permissions::all().map(|it| it.1).filter(|it| is_limitable(it));
    if !is_limitable(path) {
        return Err(RateError::Never(path.to_owned()));
    }
    if paths().any(|it| it == path) {
        return Ok(());
    }
    let known: Vec<&str> = paths().collect();
    Err(RateError::Unknown { path: path.to_owned(), hint: hint(path, &known) })
}

/// Checks all that somebody says of limits.
///
/// # Errors
/// Names the first that cannot be.
pub(crate) fn check(limiting: &RateLimiting) -> Result<(), RateError> {
    limiting.endpoints.keys().try_for_each(|it| check_endpoint(it))?;
    Ok(limiting.read("any").map(drop)?)
}

/// The layer.
#[derive(Clone, Debug)]
pub struct Rates {
    limiter: Limiter,
    limits: Limits,
}

impl Rates {
    /// Limits requests to a service; nothing when there are no limits.
    pub fn new(limiter: Limiter, limits: Limits) -> Option<Self> {
        (!limits.is_empty()).then_some(Self { limiter, limits })
    }
}

impl<S> Layer<S> for Rates {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { rates: self.clone(), inner }
    }
}

/// A service that answers nobody too often.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    rates: Rates,
    inner: S,
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>();
        let endpoint = route.map(|it| below_service(it.as_str()));
        if !endpoint.is_none_or(is_limitable) {
            return Either::Left(self.inner.call(request));
        }
        let limits = self.rates.limits.of(endpoint).clone();
        if limits.is_empty() {
            return Either::Left(self.inner.call(request));
        }
        let limiter = self.rates.limiter.clone();
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Either::Right(Box::pin(async move {
            let (parts, body) = request.into_parts();
            let caller = parts.extensions.get::<Caller>();
            let known = caller.filter(|it| it.subject() != ANONYMOUS);
            let who = Who {
                subject: known.map(Caller::subject),
                is_user: known.is_some_and(|it| it.user().is_some()),
                tenant: caller.map(Caller::tenant),
                address: ClientAddress::of(&parts.extensions),
            };
            let decision = limiter.reserve(&limits, &who, 1).await;
            let request = Request::from_parts(parts, body);
            match decision {
                Ok(Decision::Allowed(left, _)) => {
                    let mut response = inner.call(request).await?;
                    tell(response.headers_mut(), &limits, &left);
                    Ok(response)
                }
                Ok(Decision::Uncounted) => inner.call(request).await,
                Ok(Decision::Refused(left)) => Ok(refuse(&limits, &left)),
                Err(failure) => Ok(failure.into_response()),
            }
        }))
    }
}

/// Says what is left of each limit.
fn tell(headers: &mut HeaderMap, limits: &[Limit], left: &[Left]) {
    let (mut policies, mut rest) = (String::new(), String::new());
    for Left { limit, standing } in left {
        let Some(Limit { name, policy, .. }) = limits.get(*limit) else { continue };
        let comma = if policies.is_empty() { "" } else { ", " };
        let window = policy.period().micros() / 1_000_000;
        // Writing to a text does not fail.
        let _ = write!(policies, "{comma}\"{name}\";q={};w={window}", policy.count());
        let (remaining, reset) = (standing.remaining, seconds(standing.reset));
        let _ = write!(rest, "{comma}\"{name}\";r={remaining};t={reset}");
    }
    let mut say = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    say(POLICY, policies);
    say(LEFT, rest);
    // The older fields have room for one limit: the one that ends first.
    let least = left.iter().min_by_key(|it| (it.standing.remaining, Reverse(it.standing.reset)));
    if let Some((Left { standing, .. }, limit)) =
        least.and_then(|it| Some((it, limits.get(it.limit)?)))
    {
        say(X_LIMIT, limit.policy.count().to_string());
        say(X_REMAINING, standing.remaining.to_string());
        say(X_RESET, seconds(standing.reset).to_string());
    }
}

/// Whole seconds, so that who waits them has waited long enough.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// The answer to what is more than a limit allows.
fn refuse(limits: &[Limit], left: &[Left]) -> Response {
    // A request costs one, which every limit allows some day.
    let wait = |it: &&Left| it.standing.retry.unwrap_or(Duration::MAX);
    let longest = left.iter().max_by_key(wait);
    let (wait, limit) =
        longest.map_or((Duration::ZERO, None), |it| (wait(&it), limits.get(it.limit)));
    let wait = seconds(wait).max(1);
    let what = limit.map_or_else(String::new, |Limit { policy, .. }| {
        let (count, period) = (policy.count(), policy.period().name());
        let a = if policy.period() == Period::Hour { "an" } else { "a" };
        match policy.rule() {
            Rule::Quota => format!("the quota of {count} {a} {period} is used up"),
            Rule::Rate { .. } => format!("more than {count} {a} {period} are not answered"),
        }
    });
    let unit = if wait == 1 { "second" } else { "seconds" };
    let detail = format!("{what}, try again in {wait} {unit}");
    let mut response = Failure::new(Kind::Exhausted, "rate_limited", detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    tell(response.headers_mut(), limits, left);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_none_is_refused_with_what_was_meant() {
        let why = |path| check_endpoint(path).unwrap_err().to_string();
        assert_eq!(
            why("/api/v1/ml/$trian"),
            "there is no endpoint `/api/v1/ml/$trian` to limit, did you mean `/api/v1/ml/$train`?"
        );
        assert!(
            why("/health").contains("never limited") && why("/health/$stream").contains("never")
        );
        assert!(check_endpoint("/api/v1/configs/{id}").is_ok());
    }

    #[test]
    fn health_and_metrics_are_never_limited() {
        for path in ["/health", "/health/$stream", "/metrics"] {
            assert!(!is_limitable(path), "{path}");
        }
        for path in ["/", "/healthy", "/api/v1/info", "/api/v1/metrics"] {
            assert!(is_limitable(path), "{path}");
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_micros(1)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::MAX), u64::MAX);
    }
}
