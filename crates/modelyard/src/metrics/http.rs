//! `/metrics`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use modelyard_kernel::{Caller, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Metrics;

pub(super) fn routes(metrics: Metrics) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_metrics)).with_state(metrics)
}

/// Get the metrics
///
/// In Prometheus's text format, version 0.0.4.
#[utoipa::path(get, path = "/metrics", tag = "monitoring",
    responses((status = 200, content_type = "text/plain; version=0.0.4; charset=utf-8", body = String)))]
async fn get_metrics(State(metrics): State<Metrics>, caller: Caller) -> Result<Response> {
    caller.permit(super::READ)?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, metrics.render()?).into_response())
}
