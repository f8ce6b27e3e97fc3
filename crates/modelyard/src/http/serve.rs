//! Connections: accepted up to a bound, closed when idle, drained when the process stops.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use modelyard_kernel::Background;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::App;
use super::refusal::{Answer, Completed, Turn};

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
    app: App,
    background: &Background,
    stopping: CancellationToken,
    options: ServeOptions,
) {
    let places = Arc::new(Semaphore::new(options.connections.max(1)));
    while let Some((stream, place)) = next(&listener, &places, &stopping).await {
        background.spawn(connection(stream, place, app.clone(), stopping.clone(), options));
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
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
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
            Ok((stream, _)) => return Some((stream, place)),
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

async fn connection(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    app: App,
    stopping: CancellationToken,
    options: ServeOptions,
) {
    // Answers are written whole; waiting to fill a packet only delays them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    give_up_on_silence(&stream, options.idle_timeout);
    let turn = Turn::new();
    let stream = Completed::new(TokioIo::new(stream), turn.clone(), app.clone());
    let service = service_fn(move |request: http::Request<Incoming>| {
        let answering = turn.begin();
        let answer = app.clone().call(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Answer::new(body, answering))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle_timeout)
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
