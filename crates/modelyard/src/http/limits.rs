//! Bounds of a request: how large, how long, how many at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt;
use http::{Request, header};
use http_body::{Frame, SizeHint};
use http_body_util::{Full, Limited};
use modelyard_kernel::{Failure, Kind};
use tokio::time::{Instant, Sleep, sleep};

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
    /// Ends of routes that are answered however busy the service is.
    pub vital: &'static [&'static str],
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            request_timeout: Duration::from_secs(60),
            concurrent_requests: 512,
            streamed: &["/$upload"],
            vital: &["/health"],
        }
    }
}

impl Limits {
    /// Whether the route takes a body of any size.
    pub(super) fn is_streamed(&self, route: &str) -> bool {
        self.streamed.iter().any(|end| route.ends_with(end))
    }

    /// Whether the route is answered however busy the service is.
    pub(super) fn is_vital(&self, route: &str) -> bool {
        self.vital.iter().any(|end| route.ends_with(end))
    }

    /// The request with its body within bounds.
    pub(super) fn bound(&self, request: Request<Body>, streamed: bool) -> Request<Body> {
        let body = request.body();
        if body.is_end_stream() {
            return request;
        }
        if streamed {
            let patience = self.request_timeout;
            return request.map(|body| Body::new(Moving { body, patience, stalled: None }));
        }
        let left = self.body_bytes;
        let too_long = body.size_hint().lower() > left;
        // A client that asks before it sends need not send.
        let asks = request.headers().contains_key(header::EXPECT);
        let spare = if too_long && asks { 0 } else { left.saturating_mul(4).max(1) };
        request.map(|body| Body::new(Capped { body, left, too_long, spare }))
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

/// A body of a bounded size.
///
/// What is too long is read to its end, or a good part of it, and thrown away: a client that is
/// still sending would not read an answer, and closing the connection on it would lose the answer.
struct Capped {
    body: Body,
    left: u64,
    too_long: bool,
    /// How much more is read and thrown away.
    spare: u64,
}

impl HttpBody for Capped {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let it = self.get_mut();
        loop {
            if it.too_long && it.spare == 0 {
                return Poll::Ready(Some(Err(length_limit())));
            }
            let frame = ready!(Pin::new(&mut it.body).poll_frame(cx));
            let size = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None if it.too_long => {
                    return Poll::Ready(Some(Err(length_limit())));
                }
                Some(Err(_)) | None => return Poll::Ready(frame.map(|it| it.map_err(Into::into))),
            };
            if !it.too_long {
                match it.left.checked_sub(size) {
                    Some(left) => {
                        it.left = left;
                        return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
                    }
                    None => it.too_long = true,
                }
            }
            it.spare = it.spare.saturating_sub(size);
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.too_long && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error by which axum's extractors know a body that is too long. Its type cannot be made
/// elsewhere, so this asks for one.
fn length_limit() -> axum::BoxError {
    let one_too_many = Full::new(Bytes::from_static(b"."));
    let frame = http_body_util::BodyExt::frame(&mut Limited::new(one_too_many, 0)).now_or_never();
    match frame.flatten() {
        Some(Err(it)) => it,
        _ => "the body is too long".into(),
    }
}

/// A body of any size that must keep coming.
struct Moving {
    body: Body,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
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
            if let Some(stalled) = &mut it.stalled {
                stalled.as_mut().reset(Instant::now() + it.patience);
            }
            return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
        }
        let patience = it.patience;
        let stalled = it.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
