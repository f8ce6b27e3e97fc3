//! `/health`. Open to everyone, but its stream is not.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use modelyard_kernel::reply::{event_stream, poll_interval};
use modelyard_kernel::{Health, Result};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Checks, Report, overall};

pub(super) fn routes(checks: Checks) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(stream_health))
        .with_state(checks)
}

/// How the service does.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Report` writes")]
struct HealthStatus {
    /// The worst state of all checks.
    status: Health,
    /// What was checked; left out when nothing is.
    #[schema(value_type = Object, required = false, example = json!({"database": {"state": "healthy"}}))]
    checks: Option<serde_json::Value>,
}

/// Get the health of the service
///
/// Each check is asked at most once a second.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, body = HealthStatus, description = "healthy or degraded"),
    (status = 503, body = HealthStatus, description = "unhealthy"),
))]
async fn get_health(State(checks): State<Checks>) -> Response {
    answer(checks.latest().await.as_ref())
}

pub(super) fn front(services: Vec<(String, Checks)>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_front_health)).with_state(Arc::from(services))
}

/// Get the health of all services of the process
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, body = HealthStatus, description = "all of them are healthy or degraded"),
    (status = 503, body = HealthStatus, description = "at least one is unhealthy"),
))]
async fn get_front_health(State(services): State<Arc<[(String, Checks)]>>) -> Response {
    answer(&overall(&services).await)
}

fn answer(report: &Report) -> Response {
    let mut response = Body::from(report.body.clone()).into_response();
    if report.overall == Health::Unhealthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Follow the health of the service
///
/// Server-sent events: the same as `/health` every `poll_interval` seconds, without end.
#[utoipa::path(get, path = "/health/$stream", tag = "health",
    params(("poll_interval" = Option<f64>, Query,
        description = "seconds between events, above 0 and at most 60; 1 unless given")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn stream_health(State(checks): State<Checks>, RawQuery(raw): RawQuery) -> Result<Response> {
    let interval = poll_interval(raw.as_deref(), 1.0)?;
    let events = stream::unfold(false, move |waits| {
        let checks = checks.clone();
        async move {
            let stopping = checks.0.background.stopping();
            if waits {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = stopping.cancelled() => return None,
                }
            }
            let event: Bytes = checks.latest().await.event.clone();
            Some((Ok::<_, Infallible>(event), true))
        }
    });
    Ok(event_stream(Body::from_stream(events)))
}
