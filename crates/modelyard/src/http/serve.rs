//! Connections: accepted up to a bound, closed when idle, drained when the process stops.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use modelyard_kernel::Background;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::client::Peer;
use super::refusal::{self, Answer, Completed, Turn};
use super::{App, Tls};

/// The longest that client and server may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is kept of requests and answers that are on their way on a connection, and so the most that
/// the head of a request may come to.
const BUFFER: usize = 128 << 10;

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// How long a connection may be idle, take to send the head of a request, or take nothing of an
    /// answer.
    pub idle_timeout: Duration,
    /// How long a stop waits for requests that are being answered.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            idle_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Answers requests until `stopping` is cancelled, and returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    app: App,
    background: &Background,
    stopping: CancellationToken,
    options: ServeOptions,
) {
    let places = Arc::new(Semaphore::new(options.connections.max(1)));
    while let Some((stream, address, place)) = next(&listener, &places, &stopping).await {
        let connection = Connection {
            peer: Peer { address, tls: tls.is_some() },
            app: app.clone(),
            stopping: stopping.clone(),
            options,
        };
        background.spawn(connection.run(stream, tls.clone(), place));
    }
    // Nobody gets in any more; what is inside may finish.
    drop(listener);
    let all = u32::try_from(options.connections.max(1)).unwrap_or(u32::MAX);
    let patience = options.drain + Duration::from_secs(1);
    if tokio::time::timeout(patience, places.acquire_many(all)).await.is_err() {
        tracing::warn!("connections are still open and will be cut");
    }
}

/// The next connection, once there is a place for it; `None` when no more are wanted.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stopping: &CancellationToken,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = tokio::select! {
        () = stopping.cancelled() => return None,
        place = places.clone().acquire_owned() => place.ok()?,
    };
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => return Some((stream, address.ip(), place)),
            Err(it) if is_the_clients(&it) => {}
            Err(failure) => {
                // Out of file descriptors, most likely: time brings some back.
                tracing::error!(%failure, "connections cannot be accepted, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Lets the system end a connection whose client takes none of its answer for so long: such a client
/// would keep its place for ever.
fn give_up_on_silence(stream: &TcpStream, patience: Duration) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let _best_effort = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, patience);
}

fn is_the_clients(failure: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(failure.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection and what there is to know of it.
struct Connection {
    peer: Peer,
    app: App,
    stopping: CancellationToken,
    options: ServeOptions,
}

impl Connection {
    /// Keeps its place from the first byte on: whoever only begins to agree on TLS takes one, too.
    async fn run(self, stream: TcpStream, tls: Option<Tls>, _place: OwnedSemaphorePermit) {
        // Answers are written whole; waiting to fill a packet only delays them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        give_up_on_silence(&stream, self.options.idle_timeout);
        let Some(tls) = tls else { return self.answer(stream).await };
        let patience = self.options.idle_timeout.min(HANDSHAKE);
        let agreed = tokio::select! {
            agreed = tokio::time::timeout(patience, self.agree(&tls, stream)) => agreed.ok().flatten(),
            () = self.stopping.cancelled() => None,
        };
        if let Some(stream) = agreed {
            self.answer(stream).await;
        }
    }

    /// Agrees on TLS. Whoever speaks HTTP instead hears what is wrong.
    async fn agree(&self, tls: &Tls, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut first = [0];
        let peeked = stream.peek(&mut first).await.ok()?;
        if peeked == 1 && first[0].is_ascii_uppercase() {
            let answer = refusal::of_plain_http(&self.app, self.peer);
            stream.write_all(&answer).await.ok()?;
            stream.shutdown().await.ok()?;
            // To close a connection on what was not read would take the answer back.
            let _rest = stream.take(BUFFER as u64).read_to_end(&mut Vec::new()).await;
            return None;
        }
        match tls.accept(stream).await {
            Ok(stream) => Some(stream),
            Err(failure) => {
                // The client's business, such as a certificate that it does not trust.
                tracing::debug!(%failure, client = %self.peer.address, "no TLS was agreed on");
                None
            }
        }
    }

    async fn answer<T: AsyncRead + AsyncWrite + Unpin>(self, stream: T) {
        let Self { peer, app, stopping, options } = self;
        let turn = Turn::new();
        let stream = Completed::new(TokioIo::new(stream), turn.clone(), app.clone(), peer);
        let service = service_fn(move |request: http::Request<Incoming>| {
            let answering = turn.begin();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let answer = app.clone().call(request);
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answer::new(body, answering))) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.idle_timeout)
            .max_buf_size(BUFFER)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        // How a connection ends is the client's business; what was asked on it is in the access log.
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = stopping.cancelled() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            let _cut_off = tokio::time::timeout(options.drain, connection).await;
        }
    }
}
