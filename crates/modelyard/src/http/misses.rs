//! Answers to requests that no route takes, as the contract has them when a page is at `/`.

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, header};
use modelyard_kernel::{Failure, Kind};

/// Routes whose misses are answered: 404 to whoever wants to read, 405 to everyone else.
pub(super) fn answered(routes: Router) -> Router {
    routes
        .fallback(async |method: Method| of_a_path(&method))
        .method_not_allowed_fallback(async |method: Method| of_a_method(&method))
}

/// A path that no route has. Something that can be read is at `/`, hence the methods.
pub(super) fn of_a_path(method: &Method) -> Response {
    let mut response = of_a_method(method);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

/// A path that has routes, none of them for this method; the router names those that it has.
fn of_a_method(method: &Method) -> Response {
    let failure = if method == Method::GET || method == Method::HEAD {
        Failure::missing("route_missing", "Not Found")
    } else {
        Failure::new(Kind::Invalid, "method_not_allowed", "Method Not Allowed")
    };
    failure.into_response()
}
