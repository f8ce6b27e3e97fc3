//! From where a deployment may be administered: elsewhere, the routes for it do not exist.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures_util::future::Either;
use http::{Method, Request};
use ipnet::IpNet;
use tower::{Layer, Service};

use super::client::{Client, contain};
use super::misses;

/// Paths of a service below which everything is administration.
const WHOLE: [&str; 4] = ["/api/v1/users", "/api/v1/roles", "/api/v1/keys", "/api/v1/audit"];
/// Paths below which whatever changes something is.
const CHANGES: [&str; 1] = ["/api/v1/system"];

/// Mark of a request from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere;

/// Whether a request may be about administration. Nobody is locked out of the own machine: whoever
/// is on it and comes through no proxy may.
pub(super) fn reach(networks: &[IpNet], client: Option<Client>) -> bool {
    networks.is_empty()
        || client.is_some_and(|it| it.local || (!it.doubtful && contain(networks, it.address)))
}

fn is_administrative(method: &Method, path: &str) -> bool {
    let below = |root: &&str| {
        path.strip_prefix(*root).is_some_and(|it| it.is_empty() || it.starts_with('/'))
    };
    let harmless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    WHOLE.iter().any(below) || (!harmless && CHANGES.iter().any(below))
}

/// A layer behind the authenticator: whoever may not come in hears the same of every path, and
/// whoever may, of these from elsewhere, what is heard of a path that is not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hide;

impl<S> Layer<S> for Hide {
    type Service = Hidden<S>;

    fn layer(&self, inner: S) -> Hidden<S> {
        Hidden { inner }
    }
}

/// A service whose administration is hidden from elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Hidden<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Hidden<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let hidden = request.extensions().get::<Elsewhere>().is_some()
            && is_administrative(request.method(), request.uri().path());
        match hidden {
            true => Either::Right(ready(Ok(misses::of_a_path(request.method())))),
            false => Either::Left(self.inner.call(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administration_is_known_by_its_path() {
        for (method, path, is) in [
            (Method::GET, "/api/v1/users", true),
            (Method::OPTIONS, "/api/v1/users/01K6/$disable", true),
            (Method::POST, "/api/v1/keys", true),
            (Method::HEAD, "/api/v1/roles/", true),
            (Method::GET, "/api/v1/userss", false),
            (Method::GET, "/api/v1/system", false),
            (Method::GET, "/api/v1/system/apps", false),
            (Method::PUT, "/api/v1/system/mail", true),
            (Method::POST, "/api/v1/configs", false),
            (Method::POST, "/", false),
        ] {
            assert_eq!(is_administrative(&method, path), is, "{method} {path}");
        }
    }

    #[test]
    fn it_is_reached_from_its_networks_and_from_the_own_machine() {
        let networks: [IpNet; 2] =
            ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let client = |address: &str, local, doubtful| {
            Some(Client { address: address.parse().unwrap(), secure: None, local, doubtful })
        };
        assert!(reach(&[], None) && reach(&[], client("198.51.100.1", false, true)));
        assert!(reach(&networks, client("192.0.2.9", false, false)));
        assert!(reach(&networks, client("2001:db8::9", false, false)));
        assert!(reach(&networks, client("127.0.0.1", true, false)));
        assert!(!reach(&networks, client("127.0.0.1", false, false)));
        assert!(!reach(&networks, client("198.51.100.1", false, false)));
        assert!(!reach(&networks, client("192.0.2.9", false, true)));
        assert!(!reach(&networks, None));
    }
}
