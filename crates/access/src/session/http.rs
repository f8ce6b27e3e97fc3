//! `/api/v1/auth`. Takes requests apart, calls [`Sessions`], puts answers together.

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use modelyard_kernel::form::Query;
use modelyard_kernel::{Caller, Failure, Result, reply};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::login::{Credential, LoggedIn};
use super::model::{Login, Session, SessionId, SessionKind, Token};
use super::{Client, Introspection, READ, Sessions, SteppedUp, browser, model};
use crate::hidden::{NO_STORE, SecretBody};
use crate::password::Password;
use crate::user::User;

/// Tells a browser to forget what pages of ours have left with it.
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// A login.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `Login::read` takes")]
struct LoginIn {
    /// Your address.
    #[schema(example = "ada@example.org")]
    email: String,
    /// Your password.
    password: String,
    /// The code of your second factor, if you have one.
    code: Option<String>,
    /// Whether to get a cookie, as browsers want it, and no tokens.
    #[schema(value_type = bool, required = false)]
    cookie: Option<bool>,
}

/// What a login gives: tokens to programs, a CSRF token to browsers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `LoggedIn`")]
struct LoginOut {
    /// Send it as `Authorization: Bearer …`.
    #[schema(required = false)]
    access_token: String,
    #[schema(required = false, example = "Bearer")]
    token_type: String,
    /// Seconds for which the access token is good.
    #[schema(required = false, example = 600)]
    expires_in: u64,
    /// Good for another access token, once.
    #[schema(required = false)]
    refresh_token: String,
    /// Send it as `X-CSRF-Token` with everything that changes something.
    #[schema(required = false)]
    csrf_token: String,
    /// Who you are.
    user: User,
    /// Your session.
    session: Session,
    /// Whether you must set up a second factor before anything else.
    limited: bool,
}

/// A refresh token.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `refresh_session` takes")]
struct RefreshIn {
    /// The refresh token that you got last.
    refresh_token: String,
}

/// New tokens.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `Refreshed`")]
struct RefreshOut {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: String,
    /// Seconds for which the access token is good.
    #[schema(example = 600)]
    expires_in: u64,
    /// Good for another access token, once.
    refresh_token: String,
}

/// A token, as a form or as JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `TokenBody` takes")]
struct TokenIn {
    /// An access token or a refresh token.
    token: String,
}

/// Who it is, once more.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `step_up_session` takes")]
struct StepUpIn {
    /// Your password.
    password: String,
    /// The code of your second factor, if you have one.
    code: Option<String>,
}

/// The session with which you ask.
#[derive(Serialize, ToSchema)]
struct CurrentSession {
    #[serde(flatten)]
    #[schema(inline)]
    session: Session,
    /// Send it as `X-CSRF-Token` with everything that changes something. Only with a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    csrf_token: Option<Token>,
}

/// One of your sessions.
#[derive(Serialize, ToSchema)]
struct OwnSession {
    #[serde(flatten)]
    #[schema(inline)]
    session: Session,
    /// Whether it is the one with which you ask.
    current: bool,
}

/// A body with a token: the RFCs have a form, everything else of ours is JSON.
struct TokenBody(Zeroizing<String>);

impl<S: Send + Sync> FromRequest<S> for TokenBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_form = content_type
            .and_then(|it| it.to_str().ok())
            .is_some_and(|it| it.starts_with("application/x-www-form-urlencoded"));
        if !is_form {
            let body = SecretBody::from_request(request, state).await?;
            let token = body.read(|node| node.object()?.required("token")?.string())?;
            return Ok(Self(Zeroizing::new(token)));
        }
        let unreadable =
            || Failure::bad_request("body_unreadable", "the form has no `token`; send `token=…`");
        let body = String::from_request(request, state).await.map_err(|_| unreadable())?;
        let form = Query::parse(Some(&body));
        let token = form.get("token").ok_or_else(unreadable)?;
        Ok(Self(Zeroizing::new(token.to_owned())))
    }
}

pub(super) fn routes(sessions: Sessions) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh_session))
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(introspect_token))
        .routes(routes!(revoke_token))
        .routes(routes!(get_session))
        .routes(routes!(step_up_session))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
        .with_state(sessions)
}

/// Log in
///
/// Programs get an access token and a refresh token; with `cookie` browsers get a cookie. The answer is the
/// same whatever is wrong with the account or the password.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = LoginIn,
    responses((status = 200, body = LoginOut)))]
async fn login(
    State(sessions): State<Sessions>,
    client: Client,
    headers: HeaderMap,
    body: SecretBody,
) -> Result<Response> {
    let login = body.read(Login::read)?;
    if login.kind == SessionKind::Cookie {
        // Nobody logs somebody else's browser in as themselves.
        browser::allow_origin(&headers, &sessions.0.options)?;
        sessions.allow_cookie(client)?;
    }
    let agent = headers.get(header::USER_AGENT).map(|it| String::from_utf8_lossy(it.as_bytes()));
    let done = sessions.login(login, client, agent.as_deref()).await?;
    Ok(logged_in(&sessions, client, &done))
}

fn logged_in(sessions: &Sessions, client: Client, done: &LoggedIn) -> Response {
    let mut response = private(done);
    if let Credential::Cookie { cookie, .. } = &done.credential {
        let secure = sessions.is_secure(client);
        let cookie = browser::set(cookie.as_str(), secure, sessions.0.options.absolute);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// JSON that nobody keeps.
fn private(it: &impl Serialize) -> Response {
    ([NO_STORE], axum::Json(it)).into_response()
}

/// Get new tokens
///
/// A refresh token is good once. When one comes a second time, its session ends: somebody has a copy.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshIn,
    responses((status = 200, body = RefreshOut)))]
async fn refresh_session(State(sessions): State<Sessions>, body: SecretBody) -> Result<Response> {
    let token = body.read(|node| node.object()?.required("refresh_token")?.string())?;
    Ok(private(&sessions.refresh(&Zeroizing::new(token)).await?))
}

/// Log out
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses((status = 204)))]
async fn logout(
    State(sessions): State<Sessions>,
    caller: Caller,
    client: Client,
) -> Result<Response> {
    sessions.logout(&caller).await?;
    Ok(logged_out(&sessions, client))
}

/// Log out everywhere
#[utoipa::path(post, path = "/api/v1/auth/logout-all", tag = "auth", responses((status = 204)))]
async fn logout_all(
    State(sessions): State<Sessions>,
    caller: Caller,
    client: Client,
) -> Result<Response> {
    sessions.logout_all(&caller).await?;
    Ok(logged_out(&sessions, client))
}

fn logged_out(sessions: &Sessions, client: Client) -> Response {
    let cookie = browser::unset(sessions.is_secure(client));
    let cleared = HeaderValue::from_static("\"cookies\", \"storage\"");
    let headers = [(header::SET_COOKIE, cookie), (CLEAR_SITE_DATA, cleared)];
    (headers, reply::nothing()).into_response()
}

/// What a token is worth (RFC 7662)
#[utoipa::path(post, path = "/api/v1/auth/introspect", tag = "auth", request_body = TokenIn,
    responses((status = 200, body = Introspection)))]
async fn introspect_token(
    State(sessions): State<Sessions>,
    caller: Caller,
    TokenBody(token): TokenBody,
) -> Result<Response> {
    caller.permit_in_deployment(READ)?;
    Ok(private(&sessions.introspect(&caller, &token).await?))
}

/// Take a token back (RFC 7009)
///
/// Its session ends. Nobody learns whether it was one.
#[utoipa::path(post, path = "/api/v1/auth/revoke", tag = "auth", request_body = TokenIn,
    responses((status = 200)))]
async fn revoke_token(
    State(sessions): State<Sessions>,
    TokenBody(token): TokenBody,
) -> Result<Response> {
    sessions.revoke(&token).await?;
    Ok(StatusCode::OK.into_response())
}

/// The session with which you ask
#[utoipa::path(get, path = "/api/v1/auth/session", tag = "auth",
    responses((status = 200, body = CurrentSession)))]
async fn get_session(
    State(sessions): State<Sessions>,
    caller: Caller,
    client: Client,
    headers: HeaderMap,
) -> Result<Response> {
    let session = sessions.current(&caller).await?;
    let cookie = browser::cookie_of(&headers, sessions.is_secure(client));
    let csrf_token = match session.kind {
        SessionKind::Cookie => cookie.and_then(|it| model::csrf_token(it, session.id.0)),
        SessionKind::Token => None,
    };
    Ok(private(&CurrentSession { session, csrf_token: csrf_token.map(Token::new) }))
}

/// Show once more who you are
///
/// Before something that matters: with your password, and the code of your second factor if you have one. A
/// browser gets another cookie and with it another `csrf_token`.
#[utoipa::path(post, path = "/api/v1/auth/$step-up", tag = "auth", request_body = StepUpIn,
    responses((status = 200, body = CurrentSession)))]
async fn step_up_session(
    State(sessions): State<Sessions>,
    caller: Caller,
    client: Client,
    body: SecretBody,
) -> Result<Response> {
    caller.permit_own()?;
    let (password, code) = body.read(|node| {
        let object = node.object()?;
        let password = object.required("password").and_then(|it| it.string()).map(Password::new);
        let code = match object.optional("code") {
            Some(it) => it.string().map(Some),
            None => Some(None),
        };
        Some((password?, code?))
    })?;
    let SteppedUp { session, cookie, lasts } =
        sessions.step_up(&caller, &password, code.as_deref()).await?;
    let csrf_token =
        cookie.as_ref().and_then(|it| model::csrf_token(it.as_str(), session.id.0)).map(Token::new);
    let mut response = private(&CurrentSession { session, csrf_token });
    if let Some(cookie) = cookie {
        let cookie = browser::set(cookie.as_str(), sessions.is_secure(client), lasts);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// List your sessions
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "auth",
    responses((status = 200, body = Vec<OwnSession>)))]
async fn list_sessions(State(sessions): State<Sessions>, caller: Caller) -> Result<Response> {
    let own = super::own_session(&caller).ok();
    let all = sessions.list(&caller).await?.into_iter();
    let all = all.map(|session| OwnSession { current: Some(session.id) == own, session });
    Ok(private(&all.collect::<Vec<_>>()))
}

/// End one of your sessions
#[utoipa::path(delete, path = "/api/v1/auth/sessions/{id}", tag = "auth",
    params(("id" = String, Path)), responses((status = 204)))]
async fn end_session(
    State(sessions): State<Sessions>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    sessions.end(&caller, SessionId::read(&id)?).await?;
    Ok(reply::nothing())
}
