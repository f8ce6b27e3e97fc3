//! What is asked for with, and of, mailed links. Takes requests apart, calls [`Links`], puts answers
//! together.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use modelyard_kernel::{Caller, Failure, Result, Time, Ulid, reply};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Links;
use super::model::{Acceptance, Reset, read_address};
use crate::hidden::SecretBody;
use crate::session::Client;

/// Who has forgotten a password.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `forgot_password` takes")]
struct ForgottenIn {
    /// The address of the account.
    #[schema(example = "ada@example.org")]
    email: String,
}

/// A new password.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `reset_password` takes")]
struct ResetIn {
    /// What was mailed.
    token: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
}

/// What takes an invitation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `accept_invitation` takes")]
struct AcceptanceIn {
    /// What was mailed.
    token: String,
    /// What the user wants to be called.
    #[schema(example = "Ada")]
    name: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
}

/// An invitation that is being mailed.
#[derive(Serialize, ToSchema)]
struct Invited {
    /// Until when it is good.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
}

pub(super) fn routes(links: Links) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(forgot_password))
        .routes(routes!(reset_password))
        .routes(routes!(accept_invitation))
        .routes(routes!(invite_user))
        .with_state(links)
}

/// Ask for a new password
///
/// A link is mailed to the address if it is that of an account; the answer is the same if not.
#[utoipa::path(post, path = "/api/v1/auth/$forgot-password", tag = "auth",
    request_body = ForgottenIn, responses((status = 202)))]
async fn forgot_password(
    State(links): State<Links>,
    client: Client,
    body: SecretBody,
) -> Result<Response> {
    links.forgot_password(body.read(|node| read_address(&node))?, client).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Set a new password with a mailed link
///
/// All sessions of the user are ended.
#[utoipa::path(post, path = "/api/v1/auth/$reset-password", tag = "auth",
    request_body = ResetIn, responses((status = 204)))]
async fn reset_password(State(links): State<Links>, body: SecretBody) -> Result<Response> {
    links.reset_password(body.read(|node| Reset::read(&node))?).await?;
    Ok(reply::nothing())
}

/// Take an invitation
#[utoipa::path(post, path = "/api/v1/auth/$accept-invitation", tag = "auth",
    request_body = AcceptanceIn, responses((status = 204)))]
async fn accept_invitation(State(links): State<Links>, body: SecretBody) -> Result<Response> {
    links.accept_invitation(body.read(|node| Acceptance::read(&node))?).await?;
    Ok(reply::nothing())
}

/// Invite a user
///
/// Mails a link with which the user chooses a password. Links that were mailed before are useless then.
#[utoipa::path(post, path = "/api/v1/users/{id}/$invite", tag = "users",
    params(("id" = String, Path)), responses((status = 202, body = Invited)))]
async fn invite_user(
    State(links): State<Links>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let user = Ulid::read(&id).ok_or_else(|| Failure::invalid_ulid(&id))?;
    let expires_at = links.invite(&caller, user).await?;
    Ok((StatusCode::ACCEPTED, Json(Invited { expires_at })).into_response())
}
