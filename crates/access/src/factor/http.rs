//! `/api/v1/account/factor`. Takes requests apart, calls [`Factors`], puts answers together.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use modelyard_kernel::{Caller, Failure, Result, Ulid, reply};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Factors;
use super::model::{FactorSetup, FactorState, RecoveryCodes};
use crate::hidden::{NO_STORE, SecretBody};

/// A code that an authenticator shows.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `confirm_factor` takes")]
struct FactorCode {
    /// Six digits.
    #[schema(example = "755224")]
    code: String,
}

pub(super) fn routes(factors: Factors) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_factor, begin_factor, delete_factor))
        .routes(routes!(confirm_factor))
        .routes(routes!(renew_recovery_codes))
        .routes(routes!(reset_factor))
        .with_state(factors)
}

/// Get the state of the own second factor
#[utoipa::path(get, path = "/api/v1/account/factor", tag = "account",
    responses((status = 200, body = FactorState)))]
async fn get_factor(State(factors): State<Factors>, caller: Caller) -> Result<Json<FactorState>> {
    Ok(Json(factors.get(&caller).await?))
}

/// Begin to set a second factor
///
/// Needs a login of the last five minutes. Codes are asked for once one was right: see `$confirm`.
#[utoipa::path(post, path = "/api/v1/account/factor", tag = "account",
    responses((status = 200, body = FactorSetup)))]
async fn begin_factor(State(factors): State<Factors>, caller: Caller) -> Result<Response> {
    Ok(([NO_STORE], Json(factors.begin(&caller).await?)).into_response())
}

/// Set the second factor that was begun
///
/// Answers the recovery codes, which are shown this once.
#[utoipa::path(post, path = "/api/v1/account/factor/$confirm", tag = "account",
    request_body = FactorCode, responses((status = 200, body = RecoveryCodes)))]
async fn confirm_factor(
    State(factors): State<Factors>,
    caller: Caller,
    body: SecretBody,
) -> Result<Response> {
    let code = body.read(|node| node.object()?.required("code")?.string())?;
    Ok(([NO_STORE], Json(factors.confirm(&caller, &code).await?)).into_response())
}

/// Get new recovery codes
///
/// The old ones are no longer good. Needs a login of the last five minutes.
#[utoipa::path(post, path = "/api/v1/account/factor/$recovery-codes", tag = "account",
    responses((status = 200, body = RecoveryCodes)))]
async fn renew_recovery_codes(State(factors): State<Factors>, caller: Caller) -> Result<Response> {
    Ok(([NO_STORE], Json(factors.renew_recovery_codes(&caller).await?)).into_response())
}

/// Remove the own second factor
///
/// Needs a login of the last five minutes.
#[utoipa::path(delete, path = "/api/v1/account/factor", tag = "account",
    responses((status = 204)))]
async fn delete_factor(State(factors): State<Factors>, caller: Caller) -> Result<Response> {
    factors.delete(&caller).await?;
    Ok(reply::nothing())
}

/// Remove the second factor of a user
///
/// For somebody who has lost it. Needs a login of the last five minutes.
#[utoipa::path(delete, path = "/api/v1/users/{id}/factor", tag = "users",
    params(("id" = String, Path)), responses((status = 204)))]
async fn reset_factor(
    State(factors): State<Factors>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let user = Ulid::read(&id).ok_or_else(|| Failure::invalid_ulid(&id))?;
    factors.reset(&caller, user).await?;
    Ok(reply::nothing())
}
