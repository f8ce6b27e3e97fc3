//! `/api/v1/system`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use modelyard_kernel::reply::{self, Conditions};
use modelyard_kernel::{Caller, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AppInfo, System, SystemInfo};

pub(super) fn routes(system: System) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_system))
        .routes(routes!(list_apps))
        .routes(routes!(get_apps_schema))
        .with_state(system)
}

/// Where the service runs
#[utoipa::path(get, path = "/api/v1/system", tag = "system",
    responses((status = 200, body = SystemInfo)))]
async fn get_system(State(system): State<System>, caller: Caller) -> Result<Json<SystemInfo>> {
    Ok(Json(system.info(&caller)?))
}

/// List the pages for people
#[utoipa::path(get, path = "/api/v1/system/apps", tag = "system",
    responses((status = 200, body = Vec<AppInfo>)))]
async fn list_apps(caller: Caller, headers: HeaderMap) -> Result<Response> {
    let apps = serde_json::to_vec(&System::apps(&caller)?)?;
    Ok(reply::json_bytes(&Conditions::of(&headers), apps))
}

/// The JSON schema of the list of pages
#[utoipa::path(get, path = "/api/v1/system/apps/$schema", tag = "system",
    responses((status = 200, body = Object)))]
async fn get_apps_schema(caller: Caller, headers: HeaderMap) -> Result<Response> {
    caller.permit(super::READ)?;
    Ok(reply::document(&Conditions::of(&headers), include_str!("apps.schema.json")))
}
