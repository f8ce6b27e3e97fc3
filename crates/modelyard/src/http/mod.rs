//! The HTTP edge: what happens to every request, whichever slice answers it.
//!
//! From the outside in: [`serve()`] owns the connections, [`App`] makes the address plain, the
//! [`observe`] layer gives each request an id and answers for it in log, metrics and problem
//! documents, [`limits`] bound it, and the [`Authenticator`] of a service finds its caller.
//!
//! [`guarded`] goes around the routes of one service, [`mount`] puts services side by side, and
//! [`app`] goes around all of them.

mod auth;
mod client;
mod compress;
mod cors;
mod headers;
mod limits;
mod misses;
mod networks;
mod observe;
mod rate;
mod refusal;
mod serve;
mod sites;
#[cfg(test)]
mod tests;
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use ipnet::IpNet;
use modelyard_kernel::{Clock, Failure};
use pin_project_lite::pin_project;
use tower::{Service, ServiceBuilder};

use crate::metrics::Metrics;

pub use auth::{Authenticator, NotAHeader};
pub use client::{ForwardedHeader, Proxies};
pub(crate) use compress::accepts_gzip;
pub use cors::Cors;
pub use limits::Limits;
pub(crate) use observe::without_secrets;
pub(crate) use rate::FIELDS as RATE_FIELDS;
pub use rate::{RateError, Rates};
pub(crate) use rate::{check as check_rates, check_endpoint, is_limitable};
pub use serve::{ServeOptions, serve};
pub use sites::Sites;
pub use tls::{Tls, TlsError, TlsFiles};

/// What the operator says of the network around.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// What addresses in answers begin with, when that is not what a request says of its host.
    pub public_url: Option<String>,
    /// Who may say for whom requests are.
    pub proxies: Proxies,
    /// Pages of other sites that may read answers.
    pub cors: Cors,
    /// From where the deployment may be administered; from everywhere when this is empty.
    pub admin_networks: Vec<IpNet>,
}

/// The routes of one service behind its authenticator, which also hides what is missing, and its
/// limits, which count who was let in.
pub fn guarded(routes: Router, rates: Option<Rates>, authenticator: Authenticator) -> Router {
    let hidden = misses::answered(routes).layer(networks::Hide);
    let limited = match rates {
        Some(rates) => hidden.layer(rates),
        None => hidden,
    };
    limited.layer(authenticator)
}

/// Puts guarded services side by side, each below `/services/{id}`; a single one is also at `/`,
/// where chapkit's clients expect it. With several, `front` answers at `/`, and for
/// whatever is no service.
pub fn mount(services: Vec<(String, Router)>, front: Router) -> Router {
    let single = if let [(_, only)] = services.as_slice() { Some(only.clone()) } else { None };
    let root = single.unwrap_or(front);
    services
        .into_iter()
        .fold(root, |root, (id, routes)| root.nest(&format!("/services/{id}"), routes))
}

/// The whole application: every request observed and bounded.
pub fn app(
    routes: Router,
    clock: Clock,
    metrics: Metrics,
    limits: Limits,
    surroundings: Surroundings,
) -> App {
    let observe = observe::Observe::new(clock, metrics, limits, surroundings);
    let layers = ServiceBuilder::new()
        .layer(observe.clone())
        // Bodies are bounded by `limits`, which knows the routes that take large ones.
        .layer(DefaultBodyLimit::disable());
    App { routes: routes.layer(layers), observe }
}

/// The application as a service. Cheap to clone.
///
/// Around the router it does what the router cannot see: `%24` in a path is the `$` of an
/// operation, and the methods that a 405 names are a readable list.
#[derive(Clone, Debug)]
pub struct App {
    routes: Router,
    observe: observe::Observe,
}

impl App {
    /// What is answered to what is no request, which is written down.
    fn refuse(&self, failure: Failure, status: StatusCode, peer: client::Peer) -> refusal::Refused {
        self.observe.refuse(&failure, status, peer)
    }
}

impl Service<Request<Body>> for App {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        if request.uri().path().contains("%24") {
            let plain = with_dollars(request.uri());
            *request.uri_mut() = plain;
        }
        Answer { inner: self.routes.call(request) }
    }
}

fn with_dollars(uri: &Uri) -> Uri {
    let path = uri.path().replace("%24", "$");
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(whole).ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

pin_project! {
    /// The answer of [`App`], on its way.
    pub struct Answer {
        #[pin]
        inner: RouteFuture<Infallible>,
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Future for Answer {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => space_out(&mut response),
            // The router names the methods of a path that, for this method, does not exist, also to whoever is
            // not to know which paths do.
            it if it.is_client_error() || it.is_server_error() => {
                response.headers_mut().remove(header::ALLOW);
            }
            _ => {}
        }
        Poll::Ready(Ok(response))
    }
}

/// `GET,HEAD` becomes `GET, HEAD`.
fn space_out(response: &mut Response) {
    let Some(allow) = response.headers().get(header::ALLOW).and_then(|it| it.to_str().ok()) else {
        return;
    };
    let methods: Vec<&str> = allow.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
}
