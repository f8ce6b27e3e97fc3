//! `/api/v1/roles`. Takes requests apart, calls [`Roles`], puts answers together.

use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use http::HeaderMap;
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, Failure, JsonBody, Result, Ulid};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Binding, NewRole, Role};
use super::{Roles, WRITE};

/// A new role.
#[derive(ToSchema)]
#[schema(example = json!({"name": "forecaster", "description": "Predicts, and sees what it does.",
    "permissions": ["ml:predict"], "inherits": ["viewer"]}))]
#[expect(dead_code, reason = "documents what `NewRole::read` takes")]
struct RoleIn {
    /// What it is called: lower-case letters and digits in groups joined by single hyphens. It cannot
    /// be changed.
    #[schema(min_length = 1, max_length = 64, example = "forecaster")]
    name: String,
    /// What it is for.
    #[schema(value_type = String, required = false, max_length = 500)]
    description: Option<String>,
    /// Names of permissions, with `*` for any noun or verb; none unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["ml:predict"]))]
    permissions: Option<Vec<String>>,
    /// Roles that it has all permissions of; none unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["viewer"]))]
    inherits: Option<Vec<String>>,
}

/// What a role is to be from now on.
#[derive(ToSchema)]
#[schema(example = json!({"description": "Predicts, and sees what it does.",
    "permissions": ["ml:predict"], "inherits": ["viewer"]}))]
#[expect(dead_code, reason = "documents what `NewRole::read` takes")]
struct RoleChangeIn {
    /// What it is for.
    #[schema(value_type = String, required = false, max_length = 500)]
    description: Option<String>,
    /// Names of permissions, with `*` for any noun or verb; none unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["ml:predict"]))]
    permissions: Option<Vec<String>>,
    /// Roles that it has all permissions of; none unless given.
    #[schema(value_type = Vec<String>, required = false, example = json!(["viewer"]))]
    inherits: Option<Vec<String>>,
}

/// A role to give.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `Binding::read_all` takes")]
pub(crate) struct BindingIn {
    /// The role.
    #[schema(example = "operator")]
    role: String,
    /// The service in which the subject is to have it; everywhere unless given.
    #[schema(value_type = String, required = false, example = "*")]
    applies_to: Option<String>,
}

pub(super) fn routes(roles: Roles) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_roles, create_role))
        .routes(routes!(list_role_bindings, update_role_bindings))
        .routes(routes!(get_role, update_role, delete_role))
        .with_state(roles)
}

/// List roles
///
/// Those that come with the program, then the tenant's own by name.
#[utoipa::path(get, path = "/api/v1/roles", tag = "access",
    responses((status = 200, body = Vec<Role>)))]
async fn list_roles(
    State(roles): State<Roles>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    let all = roles.list(&caller).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&all)?))
}

/// Create a role
///
/// With no more than you may do yourself.
#[utoipa::path(post, path = "/api/v1/roles", tag = "access", request_body = RoleIn,
    responses((status = 201, body = Role)))]
async fn create_role(
    State(roles): State<Roles>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let new = body.read(|node| NewRole::read(&node, None))?;
    let role = roles.create(&caller, new).await?;
    reply::created(&Place::new(&headers, &uri), &role.name, &role.etag(), &role)
}

/// Get a role
#[utoipa::path(get, path = "/api/v1/roles/{name}", tag = "access",
    params(("name" = String, Path)), responses((status = 200, body = Role)))]
async fn get_role(
    State(roles): State<Roles>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let role = roles.get(&caller, &name).await?;
    reply::entity(&Conditions::of(&headers), &role.etag(), &role)
}

/// Replace a role
///
/// One of the tenant's own, which keeps its name. Whoever has it has the new one within a second.
#[utoipa::path(put, path = "/api/v1/roles/{name}", tag = "access",
    params(("name" = String, Path)), request_body = RoleChangeIn,
    responses((status = 200, body = Role)))]
async fn update_role(
    State(roles): State<Roles>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let new = body.read(|node| NewRole::read(&node, Some(&name)))?;
    let role = roles.update(&caller, new, &Conditions::of(&headers)).await?;
    reply::entity(&Conditions::default(), &role.etag(), &role)
}

/// Delete a role
///
/// One of the tenant's own that nobody has and no role inherits from.
#[utoipa::path(delete, path = "/api/v1/roles/{name}", tag = "access",
    params(("name" = String, Path)), responses((status = 204)))]
async fn delete_role(
    State(roles): State<Roles>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    roles.delete(&caller, &name, &Conditions::of(&headers)).await?;
    Ok(reply::nothing())
}

/// List the roles of a user or key
#[utoipa::path(get, path = "/api/v1/roles/$bindings/{subject_id}", tag = "access",
    params(("subject_id" = String, Path)), responses((status = 200, body = Vec<Binding>)))]
async fn list_role_bindings(
    State(roles): State<Roles>,
    caller: Caller,
    Path(subject): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let all = roles.bindings(&caller, read_subject(&subject)?).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&all)?))
}

/// Replace the roles of a user or key
///
/// What is given or taken away is no more than you may do yourself. Somebody stays `system-admin`.
#[utoipa::path(put, path = "/api/v1/roles/$bindings/{subject_id}", tag = "access",
    params(("subject_id" = String, Path)), request_body = Vec<BindingIn>,
    responses((status = 200, body = Vec<Binding>)))]
async fn update_role_bindings(
    State(roles): State<Roles>,
    caller: Caller,
    Path(subject): Path<String>,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let subject = read_subject(&subject)?;
    let wanted = body.read(|node| Binding::read_all(&node))?;
    let all = roles.replace_bindings(&caller, subject, wanted).await?;
    Ok(reply::json_bytes(&Conditions::default(), serde_json::to_vec(&all)?))
}

fn read_subject(text: &str) -> Result<Ulid> {
    Ulid::read(text).ok_or_else(|| Failure::invalid_ulid(text))
}
