//! What programs do with their tokens: get new ones (RFC 6749, section 6), ask what one is worth (RFC 7662),
//! take one back (RFC 7009).

use futures_util::FutureExt as _;
use modelyard_kernel::event::emit;
use modelyard_kernel::{Actor, Caller, Event, Failure, Kind, Result, Scope, Time, Ulid};
use serde::Serialize;
use utoipa::ToSchema;

use super::model::{self, Session, SessionId, SessionKind, Token};
use super::store::{self, RefreshRow};
use super::{READ, Sessions};
use crate::user::{UserId, UserStatus};

/// New tokens.
#[derive(Debug, Serialize)]
pub struct Refreshed {
    /// For the next minutes.
    pub access_token: Token,
    /// `Bearer`.
    pub token_type: &'static str,
    /// For so many seconds.
    pub expires_in: u64,
    /// For another access token, once.
    pub refresh_token: Token,
}

/// What a token is worth.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Introspection {
    /// Whether it is accepted. When it is not, nothing else is said.
    pub active: bool,
    /// `access_token` or `refresh_token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub token_type: Option<&'static str>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub sub: Option<Ulid>,
    /// The user's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub username: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub sid: Option<Ulid>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub iss: Option<String>,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub aud: Option<String>,
    /// When it was made, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = i64, required = false)]
    pub iat: Option<i64>,
    /// When it ends, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = i64, required = false)]
    pub exp: Option<i64>,
}

/// Used refresh tokens of a session that are remembered, so that one that comes again ends it. An older one is
/// refused, and nothing else.
const USED_TOKENS: i64 = 20;

/// What became of a refresh token.
enum Turned {
    Into(Session),
    /// It is none, or its session or its user is no more.
    Refused,
    /// It was used before.
    Reused(SessionId),
}

impl Sessions {
    /// New tokens for a refresh token, which is used up. One that comes a second time was copied: its
    /// session ends, whoever was first.
    ///
    /// # Errors
    /// `refresh_refused`.
    pub async fn refresh(&self, presented: &str) -> Result<Refreshed> {
        let hash = model::refresh_hash(presented).ok_or_else(refused)?;
        let signer = self.0.tokens.signer().await?;
        let next = Token::refresh();
        let (it, new) = (self.clone(), next.clone());
        let turn = self.0.db.transaction(move |conn| {
            async move {
                let (users, scope, now) = (&it.0.users, it.0.users.scope(), it.0.clock.now());
                let Some(found) = store::find_refresh(conn, scope, &hash).await? else {
                    return Ok(Turned::Refused);
                };
                // The session first, as whoever removes it does: its uses come one after the other.
                let Some(session) = store::lock(conn, scope, found.session_id).await? else {
                    return Ok(Turned::Refused);
                };
                let Some(old) = store::find_refresh(conn, scope, &hash).await? else {
                    return Ok(Turned::Refused);
                };
                if old.used_at.is_some() {
                    store::revoke(conn, scope, session.id, session.user_id.0, now).await?;
                    let event = Event::new(&it.0.clock, "session.refresh_reused", session.id);
                    emit(conn, scope, event.denied().after(&session).personal(&PERSONAL)).await?;
                    return Ok(Turned::Reused(session.id));
                }
                let user = users.find_in(conn, scope, session.user_id).await?;
                let is_active = user.is_some_and(|it| it.status == UserStatus::Active);
                let is_alive = session.is_alive(&it.0.options, now) && old.expires_at > now;
                if !is_active || !is_alive {
                    return Ok(Turned::Refused);
                }
                store::use_refresh(conn, scope, &hash, now).await?;
                store::keep_last_used(conn, scope, session.id, USED_TOKENS).await?;
                store::seen(conn, scope, session.id, now).await?;
                let expires_at = now.after(it.0.options.refresh).min(session.expires_at);
                let (session_id, used_at, created_at) = (session.id, None, now);
                let row = RefreshRow { session_id, expires_at, used_at, created_at };
                let hash = model::refresh_hash(new.as_str()).unwrap_or_default();
                store::insert_refresh(conn, scope, hash, row).await?;
                let event = Event::new(&it.0.clock, "session.refreshed", session.id);
                emit(conn, &own(scope, &session), event).await?;
                Ok(Turned::Into(session))
            }
            .boxed()
        });
        let session = match turn.await? {
            Turned::Into(session) => session,
            Turned::Refused => return Err(refused()),
            Turned::Reused(session) => {
                tracing::warn!(%session, "a refresh token came a second time: its session has ended");
                return Err(refused());
            }
        };
        let tenant = self.0.users.scope().tenant();
        let access = signer.sign(tenant, session.user_id.0, session.id.0);
        Ok(Refreshed {
            access_token: Token::new(access),
            token_type: "Bearer",
            expires_in: self.0.tokens.lifetime().as_secs(),
            refresh_token: next,
        })
    }

    /// Takes a token back, which ends its session. Nobody learns whether it was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn revoke(&self, presented: &str) -> Result<()> {
        let Some((session, _)) = self.session_of(presented).await? else { return Ok(()) };
        let (scope, clock) = (self.0.users.scope().clone(), self.0.clock.clone());
        let revoke = self.0.db.transaction(move |conn| {
            async move {
                let (id, user) = (session.id, session.user_id.0);
                if store::revoke(conn, &scope, id, user, clock.now()).await? {
                    let event = Event::new(&clock, "session.ended", id);
                    emit(conn, &own(&scope, &session), event).await?;
                }
                Ok(())
            }
            .boxed()
        });
        revoke.await
    }

    /// What a token is worth, which only those hear who may.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn introspect(&self, caller: &Caller, presented: &str) -> Result<Introspection> {
        let own = caller.permit_in_deployment(READ)?;
        let Some((session, about)) = self.session_of(presented).await? else {
            return Ok(Introspection::default());
        };
        let (scope, now) = (self.0.users.scope(), self.0.clock.now());
        let mut conn = self.0.db.conn().await?;
        let user = self.0.users.find_in(&mut conn, scope, session.user_id).await?;
        let user = user.filter(|it| it.status == UserStatus::Active);
        // Of another tenant nothing is said.
        let (Some(user), true) = (user, own == scope && session.is_alive(&self.0.options, now))
        else {
            return Ok(Introspection::default());
        };
        Ok(Introspection {
            active: true,
            sub: Some(session.user_id.0),
            username: Some(user.email.to_string()),
            sid: Some(session.id.0),
            iss: Some(self.0.tokens.options().issuer.clone()),
            aud: Some(self.0.tokens.options().audience.clone()),
            ..about
        })
    }

    /// The session of a token that can be used, and what the token itself says.
    async fn session_of(&self, presented: &str) -> Result<Option<(Session, Introspection)>> {
        let (scope, now) = (self.0.users.scope(), self.0.clock.now());
        let seconds = |it: Time| Some(it.micros().div_euclid(1_000_000));
        if let Some(hash) = model::refresh_hash(presented) {
            let mut conn = self.0.db.conn().await?;
            let found = store::find_refresh(&mut conn, scope, &hash).await?;
            let Some(row) = found.filter(|it| it.used_at.is_none() && it.expires_at > now) else {
                return Ok(None);
            };
            let about = Introspection {
                token_type: Some("refresh_token"),
                iat: seconds(row.created_at),
                exp: seconds(row.expires_at),
                ..Introspection::default()
            };
            let session = store::find(&mut conn, scope, row.session_id).await?;
            return Ok(session.map(|it| (it, about)));
        }
        let Ok(claims) = self.0.tokens.verify(presented).await? else { return Ok(None) };
        if claims.tid != scope.tenant() {
            return Ok(None);
        }
        let mut conn = self.0.db.conn().await?;
        let session = store::find(&mut conn, scope, SessionId(claims.sid)).await?;
        let is_its =
            |it: &Session| it.user_id == UserId(claims.sub) && it.kind == SessionKind::Token;
        let about = Introspection {
            token_type: Some("access_token"),
            iat: Some(claims.iat),
            exp: Some(claims.exp),
            ..Introspection::default()
        };
        Ok(session.filter(is_its).map(|it| (it, about)))
    }
}

/// What of a session is not repeated in the audit.
const PERSONAL: [&str; 2] = ["address", "user_agent"];

/// The scope of the user of a session, who showed a token.
fn own(scope: &Scope, session: &Session) -> Scope {
    let subject = format!("user:{}", session.user_id).into();
    scope.with_actor(Actor { subject, address: None, request: None })
}

/// The same whatever is wrong.
fn refused() -> Failure {
    let detail = "this refresh token is not accepted, or no more; log in again";
    Failure::new(Kind::Unauthenticated, "refresh_refused", detail)
}
