//! Who is asking: API keys, or everyone when there are none.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use http::{HeaderName, HeaderValue, Request, header};
use modelyard_kernel::{Caller, Failure, Grants, Kind};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tower::{Layer, Service};

use super::Sites;

/// Whose data it is, until there are tenants.
const TENANT: &str = "default";

/// Paths that are open to everyone. Exactly these, so `/health/$stream` needs a key.
const OPEN: [&str; 5] = ["/health", "/", "/docs", "/openapi.json", "/redoc"];
/// The docs page is nothing without its script and style.
const OPEN_BELOW: &str = "/docs/";

/// Whether a path of a service needs no key.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || path.starts_with(OPEN_BELOW)
}

/// Finds the caller of each request to one service. Cheap to clone.
///
/// A layer that runs before the routes and before their misses: without a key nobody learns which
/// paths exist.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    sites: Sites,
    anonymous: Caller,
    /// The hash of each key, and who presents it. Hashes have one length, so comparing them tells
    /// nothing about a key, not even how long it is.
    keys: Vec<([u8; 32], Caller)>,
    header: HeaderName,
    /// The header as it was configured, for people.
    header_text: String,
}

/// A text that cannot name a header.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot be the name of a header; use letters, digits and hyphens, as in `X-API-Key`")]
pub struct NotAHeader(String);

impl Authenticator {
    /// Everyone may do everything.
    pub fn open(service: &str) -> Self {
        let anonymous = Caller::new("anonymous", TENANT, service, Grants::All);
        Self(Arc::new(Inner {
            sites: Sites::default(),
            anonymous,
            keys: Vec::new(),
            header: HeaderName::from_static("x-api-key"),
            header_text: String::new(),
        }))
    }

    /// Whoever presents one of `keys` in the header named `header` may do everything; without
    /// keys, everyone.
    ///
    /// # Errors
    /// When `header` cannot be the name of a header.
    pub fn new(
        service: &str,
        header: &str,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<Self, NotAHeader> {
        let name = header.parse::<HeaderName>().map_err(|_| NotAHeader(header.to_owned()))?;
        let Inner { anonymous, .. } = &*Self::open(service).0;
        let keys = keys.into_iter().filter(|key| !key.is_empty()).enumerate().map(|(n, key)| {
            let subject = format!("api-key-{}", n + 1);
            (Sha256::digest(key).into(), Caller::new(&subject, TENANT, service, Grants::All))
        });
        Ok(Self(Arc::new(Inner {
            sites: Sites::default(),
            anonymous: anonymous.clone(),
            keys: keys.collect(),
            header: name,
            header_text: header.to_owned(),
        })))
    }

    /// Also looks at where requests come from.
    #[must_use]
    pub fn within(self, sites: Sites) -> Self {
        let inner = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Inner { sites, ..inner }))
    }

    /// The caller, or nobody where nobody needs to be known.
    fn authenticate(&self, request: &Request<Body>) -> Result<Option<&Caller>, Failure> {
        let it = &*self.0;
        if it.keys.is_empty() {
            return Ok(Some(&it.anonymous));
        }
        if is_open(request.uri().path()) {
            return Ok(None);
        }
        let presented = request.headers().get(&it.header).filter(|value| !value.is_empty());
        let Some(presented) = presented else {
            let detail = format!("Missing authentication header: {}", it.header_text);
            return Err(Failure::new(Kind::Unauthenticated, "unauthenticated", detail));
        };
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every key is looked at, so the time taken does not tell which one was nearly right.
        let (mut found, mut which) = (Choice::from(0), 0_u64);
        for (n, (key, _)) in (0_u64..).zip(&it.keys) {
            let same = key.ct_eq(&presented);
            which = u64::conditional_select(&which, &n, same);
            found |= same;
        }
        let caller = usize::try_from(which).ok().and_then(|n| it.keys.get(n));
        match caller {
            Some((_, caller)) if bool::from(found) => Ok(Some(caller)),
            _ => {
                let wrong = "Invalid API key";
                Err(Failure::new(Kind::Unauthenticated, "unauthenticated", wrong))
            }
        }
    }

    fn turn_away(&self, failure: Failure) -> Response {
        let mut response = failure.into_response();
        let challenge = format!("ApiKey header=\"{}\"", self.0.header_text);
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { keys, header_text, .. } = &*self.0;
        f.debug_struct("Authenticator")
            .field("keys", &keys.len())
            .field("header", header_text)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Authenticator {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { authenticator: self.clone(), inner }
    }
}

/// A service whose requests carry their [`Caller`].
#[derive(Clone, Debug)]
pub struct Authenticated<S> {
    authenticator: Authenticator,
    inner: S,
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Inner { sites, keys, .. } = &*self.authenticator.0;
        if let Err(failure) = sites.admit(&request, keys.is_empty()) {
            return Either::Right(ready(Ok(failure.into_response())));
        }
        match self.authenticator.authenticate(&request) {
            Ok(caller) => {
                if let Some(caller) = caller.cloned() {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Err(failure) => Either::Right(ready(Ok(self.authenticator.turn_away(failure)))),
        }
    }
}
