//! Bounds of a request: how large, how long, how many at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt;
use http::{Request, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
use modelyard_kernel::{BodyLimit, Failure, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::permissions;

/// Bounds of every request.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body, in bytes.
    pub body_bytes: u64,
    /// How long an answer may take to begin.
    pub request_timeout: Duration,
    /// Requests being answered at once; more are turned away with 503.
    pub concurrent_requests: usize,
    /// Ends of routes whose body may be of any size and take any time, as long as it keeps coming.
    pub streamed: &'static [&'static str],
    /// Ends of routes whose answer comes bit by bit, for as long as the client likes.
    pub followed: &'static [&'static str],
    /// Requests with such a body, and as many with such an answer, at once: whatever else is asked
    /// finds a place.
    pub concurrent_streams: usize,
    /// Ends of routes that are answered however busy the service is.
    pub vital: &'static [&'static str],
    /// The same for bodies of those who need not be known: there is little that they have to say.
    pub open: OpenLimits,
}

/// Bounds of requests with a body to routes where nobody need be known, such as a login.
#[derive(Clone, Debug)]
pub struct OpenLimits {
    /// The largest body, in bytes.
    pub body_bytes: u64,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// So many at once.
    pub concurrent: usize,
}

impl Default for OpenLimits {
    fn default() -> Self {
        Self { body_bytes: 16 << 10, body_timeout: Duration::from_secs(5), concurrent: 128 }
    }
}

/// How the body of a request is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bodies {
    /// In size.
    Bounded,
    /// Of any size, as long as it keeps coming.
    Streamed,
    /// In size and time: nobody need be known.
    Open,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            request_timeout: Duration::from_secs(60),
            concurrent_requests: 512,
            streamed: &["/$upload", "/$batch-predict", "/$batch-train"],
            followed: &["/$stream"],
            concurrent_streams: 256,
            vital: &["/health"],
            open: OpenLimits::default(),
        }
    }
}

impl Limits {
    /// How bodies of requests to the route are bounded.
    pub(super) fn bodies(&self, route: &str) -> Bodies {
        if self.streamed.iter().any(|end| route.ends_with(end)) {
            return Bodies::Streamed;
        }
        if permissions::is_open(route) { Bodies::Open } else { Bodies::Bounded }
    }

    /// Whether the route's answer comes bit by bit.
    pub(super) fn is_followed(&self, route: &str) -> bool {
        self.followed.iter().any(|end| route.ends_with(end))
    }

    /// Whether the route is answered however busy the service is.
    pub(super) fn is_vital(&self, route: &str) -> bool {
        self.vital.iter().any(|end| route.ends_with(end))
    }

    /// The request with its body within bounds.
    pub(super) fn bound(&self, request: Request<Body>, bodies: Bodies) -> Request<Body> {
        let body = request.body();
        if body.is_end_stream() {
            return request;
        }
        // A client that asks before it sends need not send.
        let asks = request.headers().contains_key(header::EXPECT);
        let request = if asks { request } else { request.map(Lingering::around) };
        let (request, left) = match bodies {
            Bodies::Streamed => {
                let patience = self.request_timeout;
                return request.map(|body| Body::new(Moving::around(body, patience)));
            }
            Bodies::Bounded => (request, self.body_bytes),
            Bodies::Open => {
                let end = Box::pin(sleep(self.open.body_timeout));
                let request = request.map(|body| Body::new(Prompt { body, end }));
                (request, self.open.body_bytes.min(self.body_bytes))
            }
        };
        let mut request = request.map(|body| Body::new(Capped { body, left }));
        request.extensions_mut().insert(BodyLimit(left));
        request
    }
}

/// Too many requests at once.
pub(super) fn busy() -> Failure {
    Failure::new(
        Kind::Unavailable,
        "service_busy",
        "the service answers as many requests as it can, try again in a moment",
    )
}

/// The answer took too long.
pub(super) fn too_slow(limit: Duration) -> Failure {
    let seconds = limit.as_secs_f64();
    let detail = format!("the request was given up after {seconds} seconds, try again later");
    Failure::new(Kind::Unavailable, "request_timeout", detail)
}

/// There is no request to speak of: its head cannot be read, or is too large.
pub(super) fn unreadable(status: StatusCode) -> Failure {
    let (code, detail) = match status {
        StatusCode::URI_TOO_LONG => {
            ("address_too_long", "the address of the request is longer than this service reads")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            "headers_too_large",
            "the request has more headers than this service reads, send fewer",
        ),
        _ => (
            "request_unreadable",
            "this is no HTTP request: check its first line, and that each header is a name, a colon \
             and a value",
        ),
    };
    Failure::new(Kind::Invalid, code, detail)
}

/// HTTP where TLS is spoken.
pub(super) fn plain_http() -> Failure {
    let detail = "this port speaks TLS: ask it at an address that begins with `https://`";
    Failure::new(Kind::Invalid, "tls_required", detail)
}

/// A body of a bounded size.
struct Capped {
    body: Body,
    left: u64,
}

impl HttpBody for Capped {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let it = self.get_mut();
        if it.body.size_hint().lower() > it.left {
            return Poll::Ready(Some(Err(length_limit())));
        }
        let frame = ready!(Pin::new(&mut it.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref());
        let Some(left) = it.left.checked_sub(data.map_or(0, |it| it.len() as u64)) else {
            return Poll::Ready(Some(Err(length_limit())));
        };
        it.left = left;
        Poll::Ready(frame.map(|it| it.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that has come in time, or not at all.
struct Prompt {
    body: Body,
    end: Pin<Box<Sleep>>,
}

impl HttpBody for Prompt {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let it = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut it.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
        }
        ready!(it.end.as_mut().poll(cx));
        timed_out()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error by which axum's extractors know a body that is too long. Its type cannot be made
/// elsewhere, so this asks for one.
fn length_limit() -> axum::BoxError {
    let one_too_many = Full::new(Bytes::from_static(b"."));
    let frame = Limited::new(one_too_many, 0).frame().now_or_never();
    match frame.flatten() {
        Some(Err(it)) => it,
        _ => "the body is too long".into(),
    }
}

/// How much of a body that nobody wants is read, for how long, and how long it may stall.
const LINGER: (u64, Duration, Duration) =
    (256 << 20, Duration::from_secs(30), Duration::from_secs(1));

/// A body whose rest is read and thrown away when nobody wants it any more: a client that is still
/// sending would not read an answer, and closing the connection on it would lose the answer.
struct Lingering {
    body: Body,
    ended: bool,
}

impl Lingering {
    fn around(body: Body) -> Body {
        Body::new(Self { body, ended: false })
    }
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    #[expect(clippy::disallowed_methods, reason = "its connection owns it, as is said below")]
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        // It belongs to its connection: when that is closed, by a stop or by the client, it ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(throw_away(std::mem::take(&mut self.body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let (mut left, patience, stall) = LINGER;
    let reading = async {
        while let Ok(Some(Ok(frame))) = timeout(stall, body.frame()).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |it| it.len() as u64));
            if left == 0 {
                return;
            }
        }
    };
    let _out_of_patience = timeout(patience, reading).await;
}

/// What the body of an upload brings on average at least, in bytes per second.
const SLOWEST: f64 = 1024.0;

/// A body of any size that must keep coming, and not in drops.
struct Moving {
    body: Body,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Since when the client is waited for. That the server is slow is not its fault.
    waiting: Option<Instant>,
    /// How long it was waited for and what came, since it was last measured.
    waited: Duration,
    came: u64,
}

impl Moving {
    fn around(body: Body, patience: Duration) -> Self {
        let waited = Duration::ZERO;
        Self { body, patience, stalled: None, waiting: None, waited, came: 0 }
    }

    /// Takes note of a frame, and says whether they come fast enough.
    fn is_steady(&mut self, bytes: usize) -> bool {
        self.waited += self.waiting.take().map_or(Duration::ZERO, |it| it.elapsed());
        self.came += bytes as u64;
        if self.waited < self.patience {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "a measurement")]
        let steady = self.came as f64 >= SLOWEST * self.waited.as_secs_f64();
        (self.waited, self.came) = (Duration::ZERO, 0);
        steady
    }
}

fn timed_out<T>() -> Poll<Option<Result<T, axum::BoxError>>> {
    Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
}

impl HttpBody for Moving {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let it = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut it.body).poll_frame(cx) {
            let data = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref()).map(Bytes::len);
            if data.is_some_and(|bytes| !it.is_steady(bytes)) {
                return timed_out();
            }
            return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
        }
        let patience = it.patience;
        let stalled = it.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        if it.waiting.is_none() {
            let now = Instant::now();
            it.waiting = Some(now);
            stalled.as_mut().reset(now + patience);
        }
        ready!(stalled.as_mut().poll(cx));
        timed_out()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Places for requests that take as long as their client likes.
#[derive(Debug)]
pub(super) struct Places {
    uploads: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let [uploads, followers] =
            [(); 2].map(|()| Arc::new(Semaphore::new(limits.concurrent_streams)));
        Self { uploads, followers, open: Arc::new(Semaphore::new(limits.open.concurrent)) }
    }

    /// A place for a request to this route, if it is one that needs one.
    pub(super) fn take(
        &self,
        limits: &Limits,
        route: &str,
        (bodies, has_body): (Bodies, bool),
    ) -> Result<Option<OwnedSemaphorePermit>> {
        let places = match bodies {
            Bodies::Streamed => &self.uploads,
            Bodies::Open if has_body => &self.open,
            _ if limits.is_followed(route) => &self.followers,
            _ => return Ok(None),
        };
        places.clone().try_acquire_owned().map(Some).map_err(|_| busy())
    }
}

/// An answer that keeps its place until it is over.
pub(super) struct Placed {
    pub(super) body: Body,
    pub(super) _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
