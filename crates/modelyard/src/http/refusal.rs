//! What is no request: hyper refuses it before there is one for the application, with a head of its
//! own and nothing else. Here that answer gets what every other has: an id, a problem document and a
//! line in the log.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use modelyard_kernel::Ulid;
use pin_project_lite::pin_project;

use super::client::Peer;
use super::{App, limits};

/// Every answer of the application has left: what is written now is hyper's own.
const IDLE: u8 = 0;
/// The application has a request to answer.
const ANSWERING: u8 = 1;
/// The application has answered, and the end of it may wait for the client to take it.
const LEAVING: u8 = 2;

/// Whose turn it is to write on a connection.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(IDLE)))
    }

    /// The application begins an answer; its turn is over when what this gives is dropped.
    pub(super) fn begin(&self) -> Answering {
        self.0.store(ANSWERING, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IDLE
    }

    /// Nothing is left to write.
    fn flushed(&self) {
        let _still_answering =
            self.0.compare_exchange(LEAVING, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The application's turn.
#[derive(Debug)]
pub(super) struct Answering(Turn);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(LEAVING, Ordering::Relaxed);
    }
}

pin_project! {
    /// A body that keeps the application's turn until its end.
    pub(super) struct Answer<B> {
        #[pin]
        body: B,
        _answering: Answering,
    }
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A connection on which hyper's own answers are completed.
    pub(super) struct Completed<T> {
        #[pin]
        io: T,
        turn: Turn,
        app: App,
        peer: Peer,
        // What hyper believes to be written.
        owed: Vec<u8>,
    }
}

impl<T> Completed<T> {
    pub(super) fn new(io: T, turn: Turn, app: App, peer: Peer) -> Self {
        Self { io, turn, app, peer, owed: Vec::new() }
    }
}

impl<T: Write> Completed<T> {
    /// Writes what is owed.
    fn poll_pay(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        while !this.owed.is_empty() {
            let written = ready!(this.io.as_mut().poll_write(cx, this.owed))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.owed.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Read> Read for Completed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl<T: Write> Write for Completed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_pay(cx))?;
        let this = self.project();
        if this.turn.is_idle() {
            let head = bufs.iter().flat_map(|it| it.iter().copied()).collect::<Vec<u8>>();
            if let Some(whole) = complete(&head, this.app, *this.peer) {
                *this.owed = whole;
                return Poll::Ready(Ok(head.len()));
            }
        }
        this.io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_pay(cx))?;
        let this = self.project();
        // hyper comes here when it has written everything.
        this.turn.flushed();
        this.io.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_pay(cx))?;
        self.project().io.poll_shutdown(cx)
    }
}

/// hyper's empty answer with an id and a problem document. `None` when it is no such answer.
fn complete(head: &[u8], app: &App, peer: Peer) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let (before, after) = head.split_once("content-length: 0\r\n")?;
    if !after.ends_with("\r\n") {
        return None;
    }
    Some(whole(before, after, app.refuse(limits::unreadable(status), status, peer)))
}

/// The answer to who speaks HTTP where TLS is spoken.
pub(super) fn of_plain_http(app: &App, peer: Peer) -> Vec<u8> {
    let status = StatusCode::BAD_REQUEST;
    let peer = Peer { tls: false, ..peer };
    let refused = app.refuse(limits::plain_http(), status, peer);
    whole("HTTP/1.1 400 Bad Request\r\n", "connection: close\r\n\r\n", refused)
}

/// What is said without a request.
pub(super) struct Refused {
    pub(super) id: Ulid,
    pub(super) problem: Vec<u8>,
    /// Lines of the head that every answer has.
    pub(super) headers: String,
}

fn whole(before: &str, after: &str, refused: Refused) -> Vec<u8> {
    let Refused { id, problem, headers } = refused;
    let length = problem.len();
    let mut whole = format!(
        "{before}content-type: application/problem+json\r\ncontent-length: {length}\r\n\
         x-request-id: {id}\r\n{headers}{after}"
    )
    .into_bytes();
    whole.extend_from_slice(&problem);
    whole
}
