//! `/api/v1/users` and `/api/v1/account`. Takes requests apart, calls [`Users`], puts answers together.

use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, JsonBody, Result};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{NewUser, User, UserId, UserPatch, UserStatus, read_name};
use super::{Users, WRITE};
use crate::hidden::SecretBody;
use crate::password::Password;

/// What lists of users may be asked.
pub static FIELDS: Fields = Fields {
    table: "users",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("email", FieldKind::Text),
        Field::new("name", FieldKind::Text),
        Field::new("status", FieldKind::OneOf(UserStatus::NAMES)),
        Field::new("factor_required", FieldKind::Bool),
        Field::unsortable("last_login_at", FieldKind::Time),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
    ],
    keys: &[
        "id",
        "email",
        "name",
        "status",
        "factor_required",
        "last_login_at",
        "created_at",
        "updated_at",
    ],
    search: &["email", "name"],
    default_sort: ("id", Direction::Asc),
};

/// A new user.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `NewUser::read` takes")]
struct UserIn {
    /// Its address; what it logs in with.
    #[schema(example = "ada@example.org")]
    email: String,
    /// What it is called.
    #[schema(example = "Ada Lovelace")]
    name: String,
    /// Its password, of 12 to 256 characters; without one it is invited and chooses its own.
    password: Option<String>,
    /// Whether it may do nothing before it has set up a second factor.
    #[schema(value_type = bool, required = false)]
    factor_required: Option<bool>,
}

/// What is to change of a user; what is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `UserPatch::read` takes")]
struct UserChange {
    /// What it is called.
    #[schema(value_type = String, required = false, example = "Ada King")]
    name: Option<String>,
    /// Whether it may do nothing before it has set up a second factor.
    #[schema(value_type = bool, required = false)]
    factor_required: Option<bool>,
}

/// What is to change of whoever asks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `rename_account` takes")]
struct AccountChange {
    /// What you are called.
    #[schema(example = "Ada King")]
    name: String,
}

/// Another password for whoever asks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `change_password` takes")]
struct PasswordChange {
    /// The password as it is.
    old_password: String,
    /// The password to be, of 12 to 256 characters.
    new_password: String,
}

pub(super) fn routes(users: Users) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, update_user, delete_user))
        .routes(routes!(disable_user))
        .routes(routes!(enable_user))
        .routes(routes!(end_user_sessions))
        .routes(routes!(get_account, update_account))
        .routes(routes!(change_password))
        .with_state(users)
}

/// List users
#[utoipa::path(get, path = "/api/v1/users", tag = "users",
    responses((status = 200, body = Vec<User>)))]
async fn list_users(
    State(users): State<Users>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[])?;
    let listed = users.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create a user
///
/// With a password it may log in; without one it is invited.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = UserIn,
    responses((status = 201, body = User)))]
async fn create_user(
    State(users): State<Users>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: SecretBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let user = users.create(&caller, body.read(NewUser::read)?).await?;
    reply::created(&Place::new(&headers, &uri), &user.id, &user.etag(), &user)
}

/// Get a user
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path)), responses((status = 200, body = User)))]
async fn get_user(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let user = users.get(&caller, UserId::read(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &user.etag(), &user)
}

/// Change a user
///
/// What is left out stays as it is.
#[utoipa::path(put, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path)), request_body = UserChange,
    responses((status = 200, body = User)))]
async fn update_user(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_in_deployment(WRITE)?;
    let patch = body.read(UserPatch::read)?;
    let conditions = Conditions::of(&headers);
    let user = users.update(&caller, UserId::read(&id)?, patch, &conditions).await?;
    reply::entity(&Conditions::default(), &user.etag(), &user)
}

/// Delete a user
///
/// With its sessions and roles. Nobody deletes itself.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path)), responses((status = 204)))]
async fn delete_user(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    users.delete(&caller, UserId::read(&id)?, &Conditions::of(&headers)).await?;
    Ok(reply::nothing())
}

/// Keep a user from logging in
///
/// Its sessions end. Nobody disables itself.
#[utoipa::path(post, path = "/api/v1/users/{id}/$disable", tag = "users",
    params(("id" = String, Path)), responses((status = 200, body = User)))]
async fn disable_user(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let user = users.disable(&caller, UserId::read(&id)?).await?;
    reply::entity(&Conditions::default(), &user.etag(), &user)
}

/// Let a user log in again
///
/// At once, however often it failed before.
#[utoipa::path(post, path = "/api/v1/users/{id}/$enable", tag = "users",
    params(("id" = String, Path)), responses((status = 200, body = User)))]
async fn enable_user(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let user = users.enable(&caller, UserId::read(&id)?).await?;
    reply::entity(&Conditions::default(), &user.etag(), &user)
}

/// End the sessions of a user
#[utoipa::path(post, path = "/api/v1/users/{id}/$end-sessions", tag = "users",
    params(("id" = String, Path)), responses((status = 204)))]
async fn end_user_sessions(
    State(users): State<Users>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    users.end_sessions(&caller, UserId::read(&id)?).await?;
    Ok(reply::nothing())
}

/// Who am I
#[utoipa::path(get, path = "/api/v1/account", tag = "account",
    responses((status = 200, body = User)))]
async fn get_account(
    State(users): State<Users>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    let user = users.account(&caller).await?;
    reply::entity(&Conditions::of(&headers), &user.etag(), &user)
}

/// Change your name
#[utoipa::path(put, path = "/api/v1/account", tag = "account", request_body = AccountChange,
    responses((status = 200, body = User)))]
async fn update_account(
    State(users): State<Users>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response> {
    caller.permit_own()?;
    let name = body.read(|node| read_name(&node.object()?.required("name")?))?;
    let user = users.rename_account(&caller, name).await?;
    reply::entity(&Conditions::default(), &user.etag(), &user)
}

/// Change your password
///
/// Your other sessions end.
#[utoipa::path(post, path = "/api/v1/account/$change-password", tag = "account",
    request_body = PasswordChange, responses((status = 204)))]
async fn change_password(
    State(users): State<Users>,
    caller: Caller,
    body: SecretBody,
) -> Result<Response> {
    caller.permit_own()?;
    let (old, new) = body.read(|node| {
        let object = node.object()?;
        let read = |name| object.required(name).and_then(|it| it.string()).map(Password::new);
        let (old, new) = (read("old_password"), read("new_password"));
        Some((old?, new?))
    })?;
    users.change_password(&caller, &old, &new).await?;
    Ok(reply::nothing())
}
