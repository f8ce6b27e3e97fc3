//! The outermost layer: each request gets an id, a line in the log and a place in the metrics, and
//! whatever goes wrong on the way becomes a problem document.
//!
//! Every request pays for this, so nothing here formats or allocates what the answer does not need.

use std::any::Any;
use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body as _;
use modelyard_kernel::failure::{Answered, Unrendered};
use modelyard_kernel::{ClientAddress, Clock, Failure, IsSecure, RequestId, Ulid, reply};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tower::{Layer, Service};

use super::client::Peer;
use super::cors::Page;
use super::limits::{Bodies, Placed, Places};
use super::networks::{self, Elsewhere};
use super::refusal::Refused;
use super::{Limits, Surroundings, compress, cors, headers, limits};
use crate::metrics::Metrics;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where the metrics are read; they do not count themselves.
const METRICS: &str = "/metrics";
/// The target of what is written down of each request.
const ACCESS: &str = "modelyard::access";
/// How a client that left before its answer is written down, as other servers do.
const CLIENT_LEFT: u16 = 499;

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct Observe(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    metrics: Metrics,
    limits: Limits,
    around: Surroundings,
    /// Whether clients reach the service at an `https://` address, as the operator says.
    public_is_secure: bool,
    /// Requests being answered, those for the metrics aside.
    active: AtomicUsize,
    places: Places,
}

impl Observe {
    pub(super) fn new(
        clock: Clock,
        metrics: Metrics,
        limits: Limits,
        around: Surroundings,
    ) -> Self {
        let (active, places) = (AtomicUsize::new(0), Places::new(&limits));
        let public_is_secure = around.public_url.iter().any(|it| it.starts_with("https://"));
        let shared = Shared { clock, metrics, limits, around, public_is_secure, active, places };
        Self(Arc::new(shared))
    }

    /// The answer to what is no request, of which nothing but the status is known. There is no method
    /// and no route to count it for.
    pub(super) fn refuse(&self, failure: &Failure, status: StatusCode, peer: Peer) -> Refused {
        let id = self.0.clock.ulid();
        let origin = self.0.around.public_url.as_deref().unwrap_or_default();
        let trace_id = id.to_string();
        let problem = failure.problem(&Uri::default(), origin, &trace_id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        tracing::info!(
            target: ACCESS,
            status = status.as_u16(),
            code = failure.code(),
            request_id = %id,
            bytes = body.len(),
            client = %peer.address.to_canonical(),
            "no request"
        );
        let headers = headers::lines(peer.tls || self.0.public_is_secure);
        Refused { id, problem: body, headers }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { shared: self.0.clone(), inner }
    }
}

/// A service whose requests are observed.
#[derive(Clone, Debug)]
pub(super) struct Observed<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut exchange = Exchange::begin(self.shared.clone(), &mut request);
        // A browser asks this of itself, without what would let a page in.
        let refusal = cors::preflight(&request, &exchange.page);
        if refusal.is_some() {
            return Observing { exchange, refusal, inner: None, timed: false, timeout: None };
        }
        let Limits { concurrent_requests, .. } = &self.shared.limits;
        let route = exchange.route();
        if exchange.before >= *concurrent_requests && !self.shared.limits.is_vital(route) {
            let refusal = Some(limits::busy().into_response());
            return Observing { exchange, refusal, inner: None, timed: false, timeout: None };
        }
        let bodies = self.shared.limits.bodies(route);
        let asked = (bodies, !request.body().is_end_stream());
        match self.shared.places.take(&self.shared.limits, route, asked) {
            Ok(place) => exchange.place = place,
            Err(busy) => {
                let refusal = Some(busy.into_response());
                return Observing { exchange, refusal, inner: None, timed: false, timeout: None };
            }
        }
        let request = self.shared.limits.bound(request, bodies);
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => Observing {
                exchange,
                refusal: None,
                inner: Some(inner),
                timed: bodies != Bodies::Streamed,
                timeout: None,
            },
            Err(panic) => {
                let refusal = Some(defect(&*panic).into_response());
                Observing { exchange, refusal, inner: None, timed: false, timeout: None }
            }
        }
    }
}

pin_project! {
    /// An answer on its way.
    pub(super) struct Observing<F> {
        exchange: Exchange,
        // An answer that did not need the service.
        refusal: Option<Response>,
        #[pin]
        inner: Option<F>,
        timed: bool,
        // Set once the service has not answered at once, which most requests never see.
        #[pin]
        timeout: Option<Sleep>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Observing<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(refusal) = this.refusal.take() {
            return Poll::Ready(Ok(this.exchange.finish(refusal)));
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| inner.poll(cx)));
        let response = match polled {
            Ok(Poll::Ready(Ok(response))) => response,
            Err(panic) => defect(&*panic).into_response(),
            Ok(Poll::Pending) if !*this.timed => return Poll::Pending,
            Ok(Poll::Pending) => {
                let limit = this.exchange.shared.limits.request_timeout;
                if this.timeout.is_none() {
                    this.timeout.set(Some(sleep(limit)));
                }
                match this.timeout.as_mut().as_pin_mut().map(|it| it.poll(cx)) {
                    Some(Poll::Ready(())) => limits::too_slow(limit).into_response(),
                    _ => return Poll::Pending,
                }
            }
        };
        // What is left of the work ends here, before the client hears of it.
        this.inner.set(None);
        Poll::Ready(Ok(this.exchange.finish(response)))
    }
}

/// A panic is a defect of ours, and only the log hears what it said.
fn defect(panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure::internal(format!("panic: {text}"))
}

/// Where whoever finds out who asks leaves it for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker(Arc<OnceLock<Arc<str>>>);

impl Asker {
    /// Leaves it; nobody asks as two.
    pub(super) fn is(&self, subject: &Arc<str>) {
        let _first = self.0.set(Arc::clone(subject));
    }
}

/// One request and what there is to say about it.
struct Exchange {
    shared: Arc<Shared>,
    /// In its lines of the log, in `x-request-id`, in a problem's `trace_id`. An id that the client
    /// sends is ignored.
    id: Ulid,
    began: Instant,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    route: Option<MatchedPath>,
    gzip: bool,
    /// Whose request it is, when it came over a connection.
    client: Option<IpAddr>,
    /// Who asks, once that is known.
    asker: Asker,
    /// Whether nobody listens in between.
    secure: bool,
    /// Whose page asks.
    page: Page,
    /// Requests that were being answered when this one came.
    before: usize,
    /// For as long as the client takes, where it may take long.
    place: Option<OwnedSemaphorePermit>,
    answered: bool,
}

impl Exchange {
    fn begin(shared: Arc<Shared>, request: &mut Request<Body>) -> Self {
        let before = shared.active.fetch_add(1, Ordering::Relaxed);
        let Surroundings { proxies, cors, admin_networks, .. } = &shared.around;
        let peer = request.extensions().get::<Peer>().copied();
        let client = peer.map(|it| proxies.client(it, request.headers()));
        let page = cors.page(request.headers());
        let secure = client.and_then(|it| it.secure).unwrap_or(shared.public_is_secure);
        let id = shared.clock.ulid();
        let extensions = request.extensions_mut();
        extensions.insert(RequestId(id));
        if let Some(client) = client {
            extensions.insert(ClientAddress(client.address));
        }
        extensions.insert(IsSecure(secure));
        let asker = Asker::default();
        extensions.insert(asker.clone());
        if !networks::reach(admin_networks, client) {
            extensions.insert(Elsewhere);
        }
        let it = Self {
            id,
            shared,
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(header::HOST).cloned(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            gzip: compress::accepts_gzip(request.headers()),
            client: client.map(|it| it.address),
            asker,
            secure,
            page,
            before,
            place: None,
            answered: false,
        };
        if it.is_counted() {
            it.shared.metrics.request_began();
        }
        it
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", |it| it.as_str())
    }

    fn is_counted(&self) -> bool {
        !self.route().ends_with(METRICS)
    }

    /// The answer as it leaves, written down.
    fn finish(&mut self, mut response: Response) -> Response {
        if let Some(failure) = failure_of(&mut response) {
            self.log(&failure);
            self.render(&failure, &mut response);
        }
        if let Some(Answered(failures)) = response.extensions_mut().remove() {
            failures.iter().for_each(|it| self.log(it));
        }
        self.relocate(&mut response);
        let mut response = compress::compress(response, self.gzip);
        let shared = matches!(self.page, Page::Any | Page::Listed(_));
        // Whoever is told an `https://` address by the operator is never to ask otherwise.
        let transport = self.secure || self.shared.public_is_secure;
        headers::protect(response.headers_mut(), transport, shared);
        // Afterwards: what is hidden from somebody looks as what is not there, also in the order of its headers.
        if headers::is_personal(self.route()) {
            let kept = HeaderValue::from_static("no-store");
            response.headers_mut().insert(header::CACHE_CONTROL, kept);
        }
        self.shared.around.cors.tell(&self.page, response.headers_mut());
        if let Ok(id) = HeaderValue::try_from(self.id.to_string()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        self.answered = true;
        self.record(response.status().as_u16(), response.body().size_hint().exact());
        let place = self.place.take().filter(|_| self.shared.limits.is_followed(self.route()));
        match place {
            Some(_place) => response.map(|body| Body::new(Placed { body, _place })),
            None => response,
        }
    }

    /// What nobody but the operator hears: here, where the request is known.
    fn log(&self, failure: &Failure) {
        if failure.is_for_the_log() {
            tracing::error!(
                code = failure.code(),
                %failure,
                method = self.method.as_str(),
                path = without_secrets(self.uri.path()).as_ref(),
                request_id = %self.id,
                "request failed"
            );
        }
    }

    /// Scheme and host as the request has them.
    fn asked_at(&self) -> String {
        let host = self.host.iter().map(|it| (header::HOST, it.clone()));
        reply::origin(&HeaderMap::from_iter(host))
    }

    /// Slices put the place of a new thing where the request was sent to. Behind a proxy that may be
    /// an address that no client reaches.
    fn relocate(&self, response: &mut Response) {
        if self.shared.around.public_url.is_none() && !self.secure {
            return;
        }
        let Some(location) = response.headers_mut().get_mut(header::LOCATION) else { return };
        let path = location.to_str().ok().and_then(|it| it.strip_prefix(&self.asked_at()));
        let public = self.seen_at();
        let moved = path.and_then(|it| HeaderValue::try_from(format!("{public}{it}")).ok());
        if let Some(moved) = moved {
            *location = moved;
        }
    }

    /// Scheme and host as clients see them.
    fn seen_at(&self) -> String {
        let seen = || match self.asked_at() {
            it if self.secure => it.replacen("http://", "https://", 1),
            it => it,
        };
        self.shared.around.public_url.clone().unwrap_or_else(seen)
    }

    fn render(&self, failure: &Failure, response: &mut Response) {
        let origin = self.seen_at();
        let id = self.id.to_string();
        let problem = failure.problem(&self.uri, &origin, &id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        *response.body_mut() = Body::from(body);
    }

    /// The request's line in the log and its place in the metrics. The query stays out of both: it
    /// may hold what is nobody's business.
    fn record(&self, status: u16, bytes: Option<u64>) {
        let took = self.began.elapsed();
        if self.is_counted() {
            self.shared.metrics.request_ended(&self.method, status, self.route(), took);
        }
        tracing::info!(
            target: ACCESS,
            method = self.method.as_str(),
            path = without_secrets(self.uri.path()).as_ref(),
            status,
            duration_ms = took.as_secs_f64() * 1e3,
            request_id = %self.id,
            bytes,
            client = self.client.map(tracing::field::display),
            subject = self.asker.0.get().map(AsRef::as_ref),
            "request"
        );
    }
}

/// A path as it is written down: without what is no name of anything, but a key or a token that somebody has
/// put there.
pub(crate) fn without_secrets(path: &str) -> Cow<'_, str> {
    let is_secret = |part: &str| {
        let is_written = |it: u8| it.is_ascii_alphanumeric() || b"-_.~%+=".contains(&it);
        // The shortest of ours are 43 characters, those that name something 26.
        part.len() >= 40 && part.bytes().all(is_written)
    };
    if path.split('/').any(is_secret) {
        let parts = path.split('/').map(|it| if is_secret(it) { "…" } else { it });
        return parts.collect::<Vec<_>>().join("/").into();
    }
    path.into()
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.record(CLIENT_LEFT, None);
        }
        if self.is_counted() {
            self.shared.metrics.request_left();
        }
    }
}

/// The failure behind an answer. The framework's own refusals, which know nothing of problem
/// documents, become failures here.
fn failure_of(response: &mut Response) -> Option<Arc<Failure>> {
    if response.status().is_success() {
        return None;
    }
    if let Some(Unrendered(failure)) = response.extensions_mut().remove::<Unrendered>() {
        return Some(failure);
    }
    let is_text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"text/plain"));
    (response.status() == StatusCode::BAD_REQUEST && is_text).then(|| {
        Arc::new(Failure::bad_request(
            "address_unreadable",
            "the address of the request cannot be read, check its percent-encoding",
        ))
    })
}
