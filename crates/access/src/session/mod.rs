//! Sessions: where somebody is logged in. A browser shows a cookie; a program shows a token that ends
//! after some minutes, and gets another one for its refresh token, which it may use once.

mod browser;
pub mod http;
mod login;
mod model;
mod presented;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use axum::extract::FromRequestParts;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use modelyard_kernel::event::emit;
use modelyard_kernel::{
    Actor, Caller, Clock, Conn, DEPLOYMENT, Db, Event, Failure, Kind, Part, Permission, Proof,
    Result, Scope, Time, Ulid,
};

use crate::lockout;
use crate::password::Password;
use crate::token::Tokens;
use crate::user::{UserId, UserStatus, Users};

pub use browser::{CSRF_HEADER, HOST_COOKIE, PLAIN_COOKIE, cookie_of};
pub use login::{Credential, LoggedIn};
pub use model::{Login, Options, Session, SessionId, SessionKind, Token};
pub use tokens::{Introspection, Refreshed};

/// May ask what a token is worth.
pub const READ: Permission = Permission("sessions:read");

/// How often it is written down that a session is used.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// What shows, besides the password, that it is the user.
pub trait SecondFactor: Send + Sync {
    /// Whether a user has set up a second factor, and `code` is right. A code is right once.
    fn check<'a>(
        &'a self,
        scope: &'a Scope,
        user: Ulid,
        code: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FactorOutcome>>;
}

/// What came of looking at a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorOutcome {
    /// The user has none.
    NotSet,
    /// There is one, and no code was said.
    Missing,
    /// The code is wrong.
    Wrong,
    /// The code was right, then.
    Right(Time),
}

/// Nobody has a second factor.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFactors;

impl SecondFactor for NoFactors {
    fn check<'a>(
        &'a self,
        _: &'a Scope,
        _: Ulid,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FactorOutcome>> {
        Box::pin(async { Ok(FactorOutcome::NotSet) })
    }
}

/// Where a request comes from. The edge, which knows, puts it into the request's extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    /// The address, as a trusted proxy says it or the connection has it.
    pub address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
}

impl Client {
    /// The scope of somebody who asks from here, whom only what it says makes known.
    fn scope(&self, scope: &Scope, subject: &str) -> Scope {
        let (subject, address) = (subject.into(), self.address);
        scope.with_actor(Actor { subject, address, request: None })
    }

    /// The address as failures are counted: of IPv6 the network, since a household has many.
    pub(crate) fn counted_as(&self) -> String {
        lockout::place(self.address)
    }

    fn shown(&self) -> String {
        self.address.map_or_else(|| "unknown".to_owned(), |it| it.to_canonical().to_string())
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// What a request shows.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// The value of the cookie; see [`cookie_of`].
    Cookie(&'a str),
    /// What follows `Bearer`.
    AccessToken(&'a str),
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Presented::Cookie(_) => "Cookie",
            Presented::AccessToken(_) => "AccessToken",
        })
    }
}

/// Who is behind a request that shows a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionIdentity {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The user.
    pub user: Ulid,
    /// Its address.
    pub email: Arc<str>,
    /// The session.
    pub session: Ulid,
    /// When the user last proved who it is.
    pub proved_at: Time,
    /// When the user last showed a second factor, if it did.
    pub factor_at: Option<Time>,
    /// When what was shown ends at the latest.
    pub expires_at: Time,
    /// Whether the user must set up a second factor, and may do nothing else.
    pub limited: bool,
}

impl SessionIdentity {
    /// How the caller showed who it is.
    pub fn proof(&self) -> Proof {
        Proof::Session { id: self.session, proved_at: self.proved_at, factor_at: self.factor_at }
    }
}

/// A session whose user has shown once more who it is.
#[derive(Debug)]
pub struct SteppedUp {
    /// The session.
    pub session: Session,
    /// The cookie of a browser, in place of the one that it has.
    pub cookie: Option<Token>,
    /// For how long.
    pub lasts: Duration,
}

/// The sessions of a deployment. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    users: Users,
    tokens: Tokens,
    factor: Arc<dyn SecondFactor>,
    options: Options,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Sessions of `users`.
    pub fn new(
        db: Db,
        clock: Clock,
        users: Users,
        tokens: Tokens,
        factor: Arc<dyn SecondFactor>,
        options: Options,
    ) -> Self {
        Self(Arc::new(Inner { db, clock, users, tokens, factor, options }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "sessions", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Removes sessions whose time is over, and failures at addresses that count no more: `most` of
    /// each. Gives how many that were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sweep(&self, most: i64) -> Result<u64> {
        let (scope, now) = (self.0.users.scope(), self.0.clock.now());
        let mut conn = self.0.db.conn().await?;
        let sessions = store::sweep(&mut conn, scope, now, most).await?;
        drop(conn);
        Ok(sessions + self.0.users.lockout().sweep(scope, most).await?)
    }

    /// Who is behind what a request shows.
    ///
    /// Of a cookie it does not say whether the page that sent it is one of ours: ask
    /// [`Sessions::allow_unsafe`] before anything is changed.
    ///
    /// # Errors
    /// `unauthenticated` when it is nothing, or its session or its user is no more.
    pub async fn identify(&self, presented: Presented<'_>) -> Result<SessionIdentity> {
        self.look(presented, self.0.clock.now()).await?.ok_or_else(refused)
    }

    async fn look(&self, presented: Presented<'_>, now: Time) -> Result<Option<SessionIdentity>> {
        let (scope, session, ends_at) = match presented {
            Presented::Cookie(text) => {
                let Some(hash) = model::cookie_hash(text) else { return Ok(None) };
                let found = presented::find(&mut self.0.db.conn().await?, hash).await?;
                let Some((tenant, session)) = found else { return Ok(None) };
                (scope_of(&tenant), session, None)
            }
            Presented::AccessToken(text) => {
                let claims = match self.0.tokens.verify(text).await? {
                    Ok(claims) => claims,
                    Err(reason) => {
                        tracing::info!(%reason, "an access token was refused");
                        return Ok(None);
                    }
                };
                let scope = scope_of(&claims.tid);
                let id = SessionId(claims.sid);
                let found = store::find(&mut self.0.db.conn().await?, &scope, id).await?;
                let Some(session) = found else { return Ok(None) };
                if session.user_id.0 != claims.sub || session.kind != SessionKind::Token {
                    return Ok(None);
                }
                (scope, session, Some(claims.ends_at()))
            }
        };
        if !session.is_alive(&self.0.options, now) {
            return Ok(None);
        }
        let mut conn = self.0.db.conn().await?;
        let user = self.0.users.find_in(&mut conn, &scope, session.user_id).await?;
        let Some(user) = user.filter(|it| it.status == UserStatus::Active) else { return Ok(None) };
        if now.since(session.last_seen_at) >= SEEN_EVERY
            && let Err(error) = store::seen(&mut conn, &scope, session.id, now).await
        {
            // A request that only reads is answered all the same.
            tracing::warn!(%error, "it could not be written down that a session is used");
        }
        let expires_at = ends_at.map_or(session.expires_at, |it| it.min(session.expires_at));
        Ok(Some(SessionIdentity {
            tenant: scope.tenant().into(),
            user: user.id.0,
            email: user.email.as_str().into(),
            session: session.id.0,
            proved_at: session.proved_at,
            factor_at: session.factor_at,
            expires_at,
            limited: user.factor_required && session.factor_at.is_none(),
        }))
    }

    /// Whoever asks: its session.
    ///
    /// # Errors
    /// `permission_denied` when it is no user; `session_missing` when it has no session.
    pub async fn current(&self, caller: &Caller) -> Result<Session> {
        let (scope, user) = caller.permit_own()?;
        let id = own_session(caller)?;
        let found = store::find(&mut self.0.db.conn().await?, scope, id).await?;
        found.filter(|it| it.user_id == UserId(user)).ok_or_else(|| missing(id))
    }

    /// The sessions of whoever asks, newest first.
    ///
    /// # Errors
    /// `permission_denied` when it is no user.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Session>> {
        let (scope, user) = caller.permit_own()?;
        self.alive(scope, user).await
    }

    /// The sessions of a user, newest first.
    ///
    /// # Errors
    /// `permission_denied`.
    pub async fn list_of(&self, caller: &Caller, user: UserId) -> Result<Vec<Session>> {
        self.alive(caller.permit_in_deployment(READ)?, user.0).await
    }

    async fn alive(&self, scope: &Scope, user: Ulid) -> Result<Vec<Session>> {
        let now = self.0.clock.now();
        let mut all = store::of_user(&mut self.0.db.conn().await?, scope, user, now).await?;
        all.retain(|it| it.is_alive(&self.0.options, now));
        Ok(all)
    }

    /// Ends one session of whoever asks.
    ///
    /// # Errors
    /// `permission_denied` when it is no user; `session_missing` when it has no such session.
    pub async fn end(&self, caller: &Caller, id: SessionId) -> Result<()> {
        let (scope, user) = caller.permit_own()?;
        let (scope, clock) = (scope.clone(), self.0.clock.clone());
        let end = self.0.db.transaction(move |conn| {
            async move {
                if !store::revoke(conn, &scope, id, user, clock.now()).await? {
                    return Err(missing(id));
                }
                Ok(emit(conn, &scope, Event::new(&clock, "session.ended", id)).await?)
            }
            .boxed()
        });
        end.await?;
        tracing::info!(session = %id, %user, "a session was ended");
        Ok(())
    }

    /// Ends the session with which somebody asks.
    ///
    /// # Errors
    /// As [`Sessions::end`].
    pub async fn logout(&self, caller: &Caller) -> Result<()> {
        caller.permit_own()?;
        self.end(caller, own_session(caller)?).await
    }

    /// Ends all sessions of whoever asks.
    ///
    /// # Errors
    /// `permission_denied` when it is no user.
    pub async fn logout_all(&self, caller: &Caller) -> Result<()> {
        let (scope, user) = caller.permit_own()?;
        let (scope, clock) = (scope.clone(), self.0.clock.clone());
        let end = self.0.db.transaction(move |conn| {
            async move {
                end_all_in(conn, &scope, user, None, clock.now()).await?;
                Ok(emit(conn, &scope, Event::new(&clock, "user.sessions_ended", user)).await?)
            }
            .boxed()
        });
        end.await?;
        tracing::info!(%user, "all sessions of a user were ended");
        Ok(())
    }

    /// Shows once more who it is that asks, before something that matters. A browser gets another cookie: whoever
    /// has a copy of the old one has not shown anything.
    ///
    /// # Errors
    /// `password_wrong`, `factor_required`, `factor_wrong`.
    pub async fn step_up(
        &self,
        caller: &Caller,
        password: &Password,
        code: Option<&str>,
    ) -> Result<SteppedUp> {
        let (scope, user) = caller.permit_own()?;
        let Session { id, kind, .. } = self.current(caller).await?;
        let (_, tried) = self.0.users.prove(scope, UserId(user), password).await?;
        let shown = self.0.factor.check(scope, user, code).await;
        if !matches!(shown, Ok(FactorOutcome::Wrong)) {
            tried.take_back().await?;
        }
        let factor_at = match shown? {
            FactorOutcome::NotSet => None,
            FactorOutcome::Right(at) => Some(at),
            FactorOutcome::Missing => return Err(factor_required()),
            FactorOutcome::Wrong => return Err(factor_wrong()),
        };
        let (scope, clock) = (scope.clone(), self.0.clock.clone());
        let cookie = (kind == SessionKind::Cookie).then(Token::cookie);
        let hash = cookie.as_ref().and_then(|it| model::cookie_hash(it.as_str()));
        let prove = self.0.db.transaction(move |conn| {
            async move {
                store::proved(conn, &scope, id, clock.now(), factor_at).await?;
                if let Some(hash) = hash {
                    store::replace_cookie(conn, &scope, id, hash).await?;
                }
                Ok(emit(conn, &scope, Event::new(&clock, "session.proved", id)).await?)
            }
            .boxed()
        });
        prove.await?;
        tracing::info!(session = %id, %user, "a user has shown once more who it is");
        let session = self.current(caller).await?;
        let lasts = session.expires_at.since(self.0.clock.now());
        Ok(SteppedUp { session, cookie, lasts })
    }
}

/// Ends all sessions of a user but `except`, in the transaction of whatever is the reason. Who remembers
/// them learns of it within a second.
///
/// # Errors
/// When the database refuses.
pub async fn end_all_in(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    except: Option<Ulid>,
    now: Time,
) -> Result<()> {
    Ok(store::revoke_all(conn, scope, user, except, now).await?)
}

/// How the user of a session has proved who it is, unless the session has ended, in the transaction of
/// whatever depends on it.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn proof_in(
    conn: &mut Conn,
    scope: &Scope,
    id: Ulid,
    now: Time,
) -> Result<Option<Proof>> {
    let found = store::find(conn, scope, SessionId(id)).await?;
    let found = found.filter(|it| it.revoked_at.is_none() && it.expires_at > now);
    Ok(found.map(|it| Proof::Session { id, proved_at: it.proved_at, factor_at: it.factor_at }))
}

/// Forgets that the sessions of a user have shown a second factor, in the transaction in which it goes.
///
/// # Errors
/// When the database refuses.
pub async fn forget_factor_in(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()> {
    Ok(store::forget_factor(conn, scope, user).await?)
}

/// Writes down that the user of a session has shown a second factor, in the transaction that found it
/// right: when it was set up.
///
/// # Errors
/// When the database refuses.
pub async fn note_factor_in(conn: &mut Conn, scope: &Scope, session: Ulid, at: Time) -> Result<()> {
    Ok(store::note_factor(conn, scope, SessionId(session), at).await?)
}

/// The scope of the tenant that a proof names.
fn scope_of(tenant: &str) -> Scope {
    let system = Caller::system("sessions", tenant, DEPLOYMENT);
    system.permit_in_deployment(READ).expect("the system may do everything").clone()
}

fn own_session(caller: &Caller) -> Result<SessionId> {
    match caller.proof() {
        Proof::Session { id, .. } => Ok(SessionId(id)),
        _ => {
            let detail = "this is about a session, and you show none; log in first";
            Err(Failure::missing("session_missing", detail))
        }
    }
}

fn missing(id: SessionId) -> Failure {
    Failure::missing("session_missing", format!("you have no session {id}"))
}

/// The same whatever was wrong.
fn refused() -> Failure {
    let detail = "this session or token is not accepted, or no more; log in again";
    Failure::new(Kind::Unauthenticated, "unauthenticated", detail)
}

fn factor_required() -> Failure {
    let detail = "this needs the code of your second factor as well; send it as `code`";
    Failure::new(Kind::Unauthenticated, "factor_required", detail)
}

fn factor_wrong() -> Failure {
    let detail =
        "the code of your second factor is wrong, or was used before; wait for the next one";
    Failure::new(Kind::Unauthenticated, "factor_wrong", detail)
}
