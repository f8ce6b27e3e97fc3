//! From where a deployment may be administered: elsewhere, the routes for it do not exist.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::Response;
use futures_util::future::Either;
use http::Request;
use ipnet::IpNet;
use tower::{Layer, Service};

use super::client::{Client, contain};
use super::misses;
use crate::permissions::is_administrative;

/// Mark of a request from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere;

/// Whether a request may be about administration. Nobody is locked out of the own machine: whoever
/// is on it and comes through no proxy may.
pub(super) fn reach(networks: &[IpNet], client: Option<Client>) -> bool {
    networks.is_empty()
        || client.is_some_and(|it| it.local || (!it.doubtful && contain(networks, it.address)))
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
            && request
                .extensions()
                .get::<MatchedPath>()
                .is_some_and(|it| is_administrative(request.method(), it.as_str()));
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
