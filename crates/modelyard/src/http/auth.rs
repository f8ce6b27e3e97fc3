//! Who is asking: keys of the settings, whoever the deployment knows, or everyone when there is nobody.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, Either};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, header};
use modelyard_access::gate::Gate;
use modelyard_access::identity::{Identity, refused};
use modelyard_access::key::MARK;
use modelyard_access::role::Rules;
use modelyard_access::session::{Client, cookie_of};
use modelyard_kernel::address::{ClientAddress, IsSecure, RequestId};
use modelyard_kernel::{Caller, Failure, Grants, Kind, Proof};
use modelyard_ops::audit::Recorder;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tower::{Layer, Service};

use super::Sites;
use super::observe::Asker;
use crate::access::Access;
use crate::permissions;

/// Whose data it is, until there are tenants.
const TENANT: &str = "default";

/// Who asks where everybody may.
pub(super) const ANONYMOUS: &str = "anonymous";

/// How often it is asked whether somebody who follows a stream may still come in.
const ASKED_AGAIN: Duration = Duration::from_secs(2);

/// Whether nobody need be known. Where no route is, somebody has to be.
fn is_open(parts: &Parts) -> bool {
    let route = parts.extensions.get::<MatchedPath>();
    route.is_some_and(|it| permissions::is_open(it.as_str()))
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
    service: String,
    anonymous: Caller,
    /// Whom the deployment knows.
    access: Option<Access>,
    /// Which roles have what, as the service says.
    rules: Rules,
    /// The hash of each key, and who presents it. Hashes have one length, so comparing them tells
    /// nothing about a key, not even how long it is.
    keys: Vec<([u8; 32], Caller)>,
    header: HeaderName,
    /// The header as it was configured, for people.
    header_text: String,
    /// Told of whom it turns away.
    recorder: Option<Recorder>,
}

/// A text that cannot name a header.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot be the name of a header; use letters, digits and hyphens, as in `X-API-Key`")]
pub struct NotAHeader(String);

impl Authenticator {
    /// Everyone may do everything.
    pub fn open(service: &str) -> Self {
        let anonymous = Caller::new(ANONYMOUS, TENANT, service, Grants::All);
        Self(Arc::new(Inner {
            sites: Sites::default(),
            service: service.to_owned(),
            anonymous,
            access: None,
            rules: Rules::default(),
            keys: Vec::new(),
            header: HeaderName::from_static("x-api-key"),
            header_text: String::new(),
            recorder: None,
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
        let it = Self(Arc::new(Inner {
            sites: Sites::default(),
            service: service.to_owned(),
            anonymous: anonymous.clone(),
            access: None,
            rules: Rules::default(),
            keys: Vec::new(),
            header: name,
            header_text: header.to_owned(),
            recorder: None,
        }));
        Ok(it.with_keys(keys, &Grants::All))
    }

    /// Whoever presents one of `keys` may do everything in the service, and nothing to what belongs to the
    /// deployment, such as users and keys, since other services have them too.
    #[must_use]
    pub fn with_service_keys(self, keys: impl IntoIterator<Item = String>) -> Self {
        self.with_keys(keys, &Grants::none())
    }

    fn with_keys(self, keys: impl IntoIterator<Item = String>, deployment: &Grants) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        for key in keys.into_iter().filter(|key| !key.is_empty()) {
            let subject = format!("api-key-{}", inner.keys.len() + 1);
            let caller = Caller::new(&subject, TENANT, &inner.service, Grants::All)
                .with_deployment_grants(deployment.clone())
                .with_proof(Proof::Setting, None);
            inner.keys.push((Sha256::digest(key).into(), caller));
        }
        Self(Arc::new(inner))
    }

    /// Somebody is known elsewhere in the deployment: whoever is not known here may do nothing to what belongs
    /// to all of it.
    #[must_use]
    pub fn beside_others(self) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.anonymous = inner.anonymous.with_deployment_grants(Grants::none());
        Self(Arc::new(inner))
    }

    /// Also looks at where requests come from.
    #[must_use]
    pub fn within(self, sites: Sites) -> Self {
        let inner = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Inner { sites, ..inner }))
    }

    /// Also lets in whom the deployment knows, with the roles that they have by `rules`.
    #[must_use]
    pub fn knowing(self, access: Access, rules: Rules) -> Self {
        let inner = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Inner { access: Some(access), rules, ..inner }))
    }

    /// Also tells somebody of whom it turns away.
    #[must_use]
    pub fn told_to(self, recorder: Option<Recorder>) -> Self {
        let inner = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Inner { recorder, ..inner }))
    }

    /// The caller, as far as that is known without asking anybody.
    fn authenticate(&self, parts: &Parts) -> Result<Found, Failure> {
        let it = &*self.0;
        if is_open(parts) && !(it.keys.is_empty() && it.access.is_none()) {
            return Ok(Found::Nobody);
        }
        let Some(presented) = self.presented(parts) else { return self.nobody() };
        // The contract has its keys in their header and nowhere else.
        if presented.by == By::KeyHeader
            && let Some(caller) = self.of_the_settings(presented.text)
        {
            return Ok(Found::Caller(caller));
        }
        let Some(access) = &it.access else {
            return if it.keys.is_empty() { self.nobody() } else { Err(refused()) };
        };
        if it.keys.is_empty() && access.is_known_in_use() != Some(true) {
            return Ok(Found::Ask);
        }
        if presented.by == By::KeyHeader && !presented.text.starts_with(MARK) {
            return Err(refused());
        }
        let Some(known) = access.gate().known(presented.text, ClientAddress::of(&parts.extensions))
        else {
            return Ok(Found::Ask);
        };
        let identity = known?;
        let Some(book) = access.roles().known_book(&identity.tenant) else { return Ok(Found::Ask) };
        access.gate().pass(&identity)?;
        presented.allow(access, parts, &identity)?;
        Ok(Found::Caller(identity.caller(&book, &it.service, &it.rules)))
    }

    /// The caller, after those were asked who know.
    async fn ask(&self, parts: &Parts) -> Result<Option<Caller>, Failure> {
        let it = &*self.0;
        let Some(access) = &it.access else { return Ok(Some(it.anonymous.clone())) };
        // Where nobody is known, what somebody shows, such as the cookie of an earlier service, is nothing.
        let in_use = !it.keys.is_empty() || access.is_in_use().await?;
        let unless_open = |failure: Failure| match in_use {
            true => Err(failure),
            false => Ok(Some(it.anonymous.clone())),
        };
        let Some(presented) = self.presented(parts) else { return unless_open(self.missing()) };
        if presented.by == By::KeyHeader && !presented.text.starts_with(MARK) {
            return unless_open(refused());
        }
        let address = ClientAddress::of(&parts.extensions);
        let identity = match access.gate().admit(presented.text, address).await {
            Ok(identity) => identity,
            // There may be somebody since a moment ago, who cannot come in like this.
            Err(failure) if failure.kind() == Kind::Unauthenticated && !in_use => {
                return match access.look_in_use().await? {
                    true => Err(failure),
                    false => Ok(Some(it.anonymous.clone())),
                };
            }
            Err(failure) => return Err(failure),
        };
        let book = access.roles().book_of(&identity.tenant).await?;
        access.gate().pass(&identity)?;
        presented.allow(access, parts, &identity)?;
        Ok(Some(identity.caller(&book, &it.service, &it.rules)))
    }

    /// What a request shows: a key in its header, a key or a token as `Bearer`, or a cookie.
    fn presented<'a>(&self, parts: &'a Parts) -> Option<Presented<'a>> {
        let shown = |value: &'a HeaderValue| value.to_str().ok().filter(|it| !it.is_empty());
        let key = parts.headers.get(&self.0.header).and_then(shown);
        let bearer = || {
            let value = parts.headers.get(header::AUTHORIZATION).and_then(shown)?;
            let (scheme, text) = value.split_once(' ')?;
            // What can be neither a key nor a token is as nothing: the contract has it so.
            let may_be = text.starts_with(MARK) || text.contains('.');
            (scheme.eq_ignore_ascii_case("bearer") && may_be).then_some(text.trim())
        };
        if let Some(text) = key {
            return Some(Presented { text, by: By::KeyHeader });
        }
        if let Some(text) = bearer() {
            return Some(Presented { text, by: By::Bearer });
        }
        self.0.access.as_ref()?;
        let text = cookie_of(&parts.headers, IsSecure::of(&parts.extensions))?;
        Some(Presented { text, by: By::Cookie })
    }

    /// What becomes of who shows nothing.
    fn nobody(&self) -> Result<Found, Failure> {
        let it = &*self.0;
        if !it.keys.is_empty() {
            return Err(self.missing());
        }
        match it.access.as_ref().map_or(Some(false), Access::is_known_in_use) {
            Some(false) => Ok(Found::Caller(it.anonymous.clone())),
            Some(true) => Err(self.missing()),
            None => Ok(Found::Ask),
        }
    }

    fn missing(&self) -> Failure {
        let detail = format!("Missing authentication header: {}", self.0.header_text);
        Failure::new(Kind::Unauthenticated, "unauthenticated", detail)
    }

    /// Whoever shows a key of the settings.
    fn of_the_settings(&self, presented: &str) -> Option<Caller> {
        let it = &*self.0;
        if it.keys.is_empty() {
            return None;
        }
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every key is looked at, so the time taken does not tell which one was nearly right.
        let (mut found, mut which) = (Choice::from(0), 0_u64);
        for (n, (key, _)) in (0_u64..).zip(&it.keys) {
            let same = key.ct_eq(&presented);
            which = u64::conditional_select(&which, &n, same);
            found |= same;
        }
        let caller = usize::try_from(which).ok().and_then(|n| it.keys.get(n));
        caller.filter(|_| bool::from(found)).map(|it| it.1.clone())
    }

    /// Answers with a stream that ends when whoever follows it would not be let in any more, or has other roles.
    async fn follow<S>(
        self,
        mut inner: S,
        request: Request<Body>,
        found: Result<Found, Failure>,
    ) -> Result<Response, Infallible>
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible>,
    {
        let (mut parts, body) = request.into_parts();
        let caller = match found {
            Ok(Found::Caller(caller)) => Ok(Some(caller)),
            Ok(Found::Nobody) => Ok(None),
            Ok(Found::Ask) => self.ask(&parts).await,
            Err(failure) => Err(failure),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(failure) => return Ok(self.turn_away(&parts, failure)),
        };
        let watch = self.watch(&parts).await;
        if let Some(caller) = caller {
            let caller = from_here(caller, &parts);
            parts.extensions.insert(caller);
        }
        let response = inner.call(Request::from_parts(parts, body)).await?;
        let is_events = |it: &HeaderValue| it.as_bytes().starts_with(b"text/event-stream");
        let Some(watch) = watch else { return Ok(response) };
        if !response.headers().get(header::CONTENT_TYPE).is_some_and(is_events) {
            return Ok(response);
        }
        Ok(response.map(|it| Body::from_stream(it.into_data_stream().take_until(watch.ended()))))
    }

    /// Whom the gate knows behind a request, to ask it again.
    async fn watch(&self, parts: &Parts) -> Option<Watch> {
        let access = self.0.access.as_ref().filter(|it| it.is_known_in_use() == Some(true))?;
        let presented = self.presented(parts)?;
        if presented.by == By::KeyHeader && !presented.text.starts_with(MARK) {
            return None;
        }
        let (gate, address) = (access.gate().clone(), ClientAddress::of(&parts.extensions));
        let first = gate.admit(presented.text, address).await.ok();
        Some(Watch { gate, presented: presented.text.to_owned(), address, first })
    }

    fn turn_away(&self, parts: &Parts, failure: Failure) -> Response {
        // An outage refuses nobody.
        if let (Some(recorder), Kind::Unauthenticated | Kind::Denied) =
            (&self.0.recorder, failure.kind())
        {
            recorder.turned_away(ClientAddress::of(&parts.extensions), failure.code());
        }
        let is_unknown = failure.kind() == Kind::Unauthenticated;
        let mut response = failure.into_response();
        if !is_unknown {
            return response;
        }
        let challenge = format!("ApiKey header=\"{}\"", self.0.header_text);
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.0.access.is_some() {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().append(header::WWW_AUTHENTICATE, bearer);
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
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        S::Future,
        Either<
            Ready<Result<Response, Infallible>>,
            BoxFuture<'static, Result<Response, Infallible>>,
        >,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = |response| Either::Right(Either::Left(ready(Ok(response))));
        let Inner { sites, keys, .. } = &*self.authenticator.0;
        if let Err(failure) = sites.admit(&request, keys.is_empty()) {
            return answer(failure.into_response());
        }
        let (mut parts, body) = request.into_parts();
        let client = Client {
            address: ClientAddress::of(&parts.extensions),
            secure: IsSecure::of(&parts.extensions),
        };
        parts.extensions.insert(client);
        let found = self.authenticator.authenticate(&parts);
        if is_stream(&parts) && !matches!(found, Err(_) | Ok(Found::Nobody)) {
            let authenticator = self.authenticator.clone();
            let ready = self.inner.clone();
            let inner = std::mem::replace(&mut self.inner, ready);
            let answer = authenticator.follow(inner, Request::from_parts(parts, body), found);
            return Either::Right(Either::Right(Box::pin(answer)));
        }
        match found {
            Ok(Found::Caller(caller)) => {
                let caller = from_here(caller, &parts);
                parts.extensions.insert(caller);
                Either::Left(self.inner.call(Request::from_parts(parts, body)))
            }
            Ok(Found::Nobody) => Either::Left(self.inner.call(Request::from_parts(parts, body))),
            Ok(Found::Ask) => {
                let authenticator = self.authenticator.clone();
                let ready = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, ready);
                Either::Right(Either::Right(Box::pin(async move {
                    match authenticator.ask(&parts).await {
                        Ok(caller) => {
                            if let Some(caller) = caller {
                                let caller = from_here(caller, &parts);
                                parts.extensions.insert(caller);
                            }
                            inner.call(Request::from_parts(parts, body)).await
                        }
                        Err(failure) => Ok(authenticator.turn_away(&parts, failure)),
                    }
                })))
            }
            Err(failure) => answer(self.authenticator.turn_away(&parts, failure)),
        }
    }
}

/// Whether somebody wants to follow something, for as long as it likes.
fn is_stream(parts: &Parts) -> bool {
    parts.uri.path().ends_with("stream")
}

/// A caller with where it asks from, who is left for the log.
fn from_here(caller: Caller, parts: &Parts) -> Caller {
    if let Some(asker) = parts.extensions.get::<Asker>() {
        asker.is(&caller.actor().subject);
    }
    caller.with_origin(ClientAddress::of(&parts.extensions), RequestId::of(&parts.extensions))
}

/// Somebody who follows a stream.
struct Watch {
    gate: Gate,
    presented: String,
    address: Option<IpAddr>,
    /// Who it was at first, unless that could not be asked.
    first: Option<Arc<Identity>>,
}

impl Watch {
    /// Ends when it would not be let in any more, or as somebody else.
    async fn ended(self) {
        loop {
            tokio::time::sleep(ASKED_AGAIN).await;
            match self.gate.admit(&self.presented, self.address).await {
                Ok(now) if self.first.as_ref().is_none_or(|it| is_same(it, &now)) => {}
                Ok(_) => return,
                Err(failure) if failure.kind() == Kind::Unauthenticated => return,
                // An outage refuses nobody.
                Err(_) => {}
            }
        }
    }
}

/// Whether somebody still may what it might.
fn is_same(before: &Identity, now: &Identity) -> bool {
    before.bindings == now.bindings && before.scopes == now.scopes
}

/// What is known of who asks.
enum Found {
    /// Who it is.
    Caller(Caller),
    /// Nobody, where nobody need be known.
    Nobody,
    /// Others have to be asked.
    Ask,
}

/// What a request shows.
#[derive(Clone, Copy)]
struct Presented<'a> {
    text: &'a str,
    by: By,
}

/// Where it shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    KeyHeader,
    Bearer,
    Cookie,
}

impl Presented<'_> {
    /// A browser sends cookies also for pages of others; those may change nothing.
    fn allow(&self, access: &Access, parts: &Parts, identity: &Identity) -> Result<(), Failure> {
        match identity.proof {
            Proof::Session { id, .. } if self.by == By::Cookie => {
                access.sessions().allow_unsafe(&parts.method, &parts.headers, self.text, id)
            }
            _ if self.by == By::Cookie => Err(refused()),
            _ => Ok(()),
        }
    }
}
