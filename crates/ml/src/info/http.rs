//! `/api/v1/info`.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use modelyard_kernel::reply::{self, Conditions};
use modelyard_kernel::{Caller, Part, Permission, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// May see what the service is.
pub const READ: Permission = Permission("info:read");

/// What the service says of itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Info(bytes::Bytes);

impl Info {
    /// `json` is the description as it goes over the wire.
    ///
    /// # Errors
    /// When it cannot be written as JSON: a defect of ours.
    pub fn new(json: &serde_json::Value) -> Result<Self> {
        Ok(Self(serde_json::to_vec(json)?.into()))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        let routes = OpenApiRouter::new().routes(routes!(get_info)).with_state(self.clone());
        Part { name: "info", routes, ..Part::default() }
    }
}

/// Describe the service
#[utoipa::path(get, path = "/api/v1/info", tag = "service",
    responses((status = 200, body = Object)))]
async fn get_info(
    State(info): State<Info>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    caller.permit(READ)?;
    Ok(reply::json_bytes(&Conditions::of(&headers), info.0.to_vec()))
}
