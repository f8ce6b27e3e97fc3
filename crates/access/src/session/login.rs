//! Logging in. Whoever fails learns nothing of the account: the answer, and what is computed and written for
//! it, is the same whether it is unknown or disabled, or the password is wrong. Whoever has to wait gets the same
//! answer without anything computed, whether there is such an account or not.

use std::sync::Arc;

use futures_util::FutureExt as _;
use modelyard_kernel::event::emit;
use modelyard_kernel::{Event, Failure, Kind, Result, Time};
use serde::Serialize;

use super::model::{self, Login, Session, SessionId, SessionKind, Token};
use super::store::{self, RefreshRow};
use super::{Client, FactorOutcome, Sessions, factor_required, factor_wrong};
use crate::lockout::{Begun, Try};
use crate::notice::Notice;
use crate::user::{Credentials, Email, User, UserId};

/// Sessions of a user that are kept; the oldest goes when there is another.
const MOST_SESSIONS: i64 = 50;

/// What a session is to be shown by.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Credential {
    /// To a browser.
    Cookie {
        /// The value of its cookie, which the body of an answer does not have.
        #[serde(skip)]
        cookie: Token,
        /// What its pages send with everything that changes something.
        csrf_token: Token,
    },
    /// To a program.
    Tokens {
        /// For the next minutes.
        access_token: Token,
        /// `Bearer`.
        token_type: &'static str,
        /// For so many seconds.
        expires_in: u64,
        /// For another access token, once.
        refresh_token: Token,
    },
}

/// A login that went well.
#[derive(Debug, Serialize)]
pub struct LoggedIn {
    /// What to show from now on.
    #[serde(flatten)]
    pub credential: Credential,
    /// Who it is.
    pub user: User,
    /// The session.
    pub session: Session,
    /// Whether a second factor must be set up before anything else.
    pub limited: bool,
}

impl Sessions {
    /// Begins a session.
    ///
    /// # Errors
    /// `login_refused` whatever is wrong with the account or the password; `factor_required`,
    /// `factor_wrong` once the password is right; `logins_exhausted` when there were too many failures at
    /// this address; `logins_busy` when as many logins as may be are under way.
    pub async fn login(
        &self,
        login: Login,
        client: Client,
        user_agent: Option<&str>,
    ) -> Result<LoggedIn> {
        // Nobody has an address that is none.
        let email = Email::read(&login.email).map_or_else(String::new, |it| it.as_str().to_owned());
        let (users, scope) = (&self.0.users, self.0.users.scope());
        let found = users.credentials(scope, &email).await?;
        let id = found.as_ref().map(|it| it.id);
        let tried = match users.lockout().begin(scope, &email, client.address).await? {
            Begun::Try(tried) => tried,
            Begun::Wait => {
                self.tell_of_refusal(client, id, "login_refused").await?;
                return Err(refused());
            }
        };
        let done = self.try_login(login, found, client, user_agent, &tried).await;
        match &done {
            Ok(_) => {}
            Err(it) if matches!(it.code(), "login_refused" | "factor_wrong") => {
                self.tell_of_refusal(client, id, it.code().to_owned()).await?;
            }
            // Whatever else is in the way, nobody has guessed.
            Err(_) => tried.take_back().await?,
        }
        done
    }

    async fn try_login(
        &self,
        login: Login,
        found: Option<Credentials>,
        client: Client,
        user_agent: Option<&str>,
        tried: &Arc<Try>,
    ) -> Result<LoggedIn> {
        let Login { email: _, password, code, kind } = login;
        let (users, scope) = (&self.0.users, self.0.users.scope());
        let hash = found.as_ref().and_then(|it| it.password_hash.as_deref());
        let right = users.passwords().verify(&password, hash).await?;
        let Some(user) = found.filter(|it| right && it.may_log_in()) else {
            // Not with what was typed: people type their password there.
            tracing::info!(address = %client.shown(), "a login was refused");
            return Err(refused());
        };

        let factor_at = match self.0.factor.check(scope, user.id.0, code.as_deref()).await? {
            FactorOutcome::NotSet => None,
            FactorOutcome::Right(at) => Some(at),
            FactorOutcome::Missing => return Err(factor_required()),
            FactorOutcome::Wrong => {
                tracing::info!(user = %user.id, address = %client.shown(), "a second factor was wrong");
                return Err(factor_wrong());
            }
        };

        let old = user.password_hash.as_deref().unwrap_or_default();
        let rehash = match users.passwords().needs_rehash(old) {
            true => Some(users.passwords().hash(&password).await?),
            false => None,
        };
        let agent = model::agent(user_agent);
        self.begin(&user, kind, factor_at, rehash, (client, agent), tried).await
    }

    async fn begin(
        &self,
        user: &Credentials,
        kind: SessionKind,
        factor_at: Option<Time>,
        rehash: Option<String>,
        (client, user_agent): (Client, String),
        tried: &Arc<Try>,
    ) -> Result<LoggedIn> {
        let address = client.shown();
        let signer = self.0.tokens.signer().await?;
        let (now, options) = (self.0.clock.now(), &self.0.options);
        let session = Session {
            id: SessionId::new(&self.0.clock),
            user_id: user.id,
            kind,
            address,
            user_agent,
            factor_at,
            proved_at: now,
            last_seen_at: now,
            expires_at: now.after(options.absolute),
            revoked_at: None,
            created_at: now,
        };
        let secret = match kind {
            SessionKind::Cookie => Token::cookie(),
            SessionKind::Token => Token::refresh(),
        };
        let refresh_ends = now.after(options.refresh).min(session.expires_at);

        let (it, shown, row) = (self.clone(), secret.clone(), session.clone());
        let tried = Arc::clone(tried);
        let changed_at = user.password_changed_at;
        let begin = self.0.db.transaction(move |conn| {
            async move {
                let (users, scope) = (&it.0.users, it.0.users.scope());
                // Others may have changed the password at the same time.
                let user = users.lock_credentials(conn, scope, row.user_id).await?;
                let is_same = |it: &Credentials| it.password_changed_at == changed_at;
                let user = user.filter(|it| is_same(it) && it.may_log_in());
                let Some(Credentials { last_login_at, .. }) = user else { return Ok(None) };
                tried.succeed_in(conn).await?;
                users.note_login(conn, scope, row.user_id, rehash.as_deref(), now).await?;
                let (address, agent) = (&row.address, &row.user_agent);
                let here = store::count(conn, scope, row.user_id.0, address, agent).await?;
                store::forget(conn, scope, row.user_id.0, now).await?;
                match row.kind {
                    SessionKind::Cookie => {
                        let hash = model::cookie_hash(shown.as_str());
                        store::insert(conn, scope, &row, hash).await?;
                    }
                    SessionKind::Token => {
                        store::insert(conn, scope, &row, None).await?;
                        let hash = model::refresh_hash(shown.as_str()).unwrap_or_default();
                        let (used_at, created_at) = (None, now);
                        let (session_id, expires_at) = (row.id, refresh_ends);
                        let row = RefreshRow { session_id, expires_at, used_at, created_at };
                        store::insert_refresh(conn, scope, hash, row).await?;
                    }
                }
                let Some(user) = users.find_in(conn, scope, row.user_id).await? else {
                    return Ok(None);
                };
                let own = client.scope(scope, &format!("user:{}", row.user_id));
                for (id,) in store::keep_newest(conn, scope, row.user_id.0, MOST_SESSIONS).await? {
                    emit(conn, &own, Event::new(&it.0.clock, "session.ended", id)).await?;
                }
                let event = Event::new(&it.0.clock, "session.created", row.id).after(&row);
                emit(conn, &own, event.personal(&["address", "user_agent"])).await?;
                let (address, user_agent) = (row.address, row.user_agent);
                let after = match last_login_at.is_some() && here == 0 {
                    true => {
                        let notice = Notice::NewLogin { at: now, address, user_agent };
                        users.tell(conn, scope, &user, notice).await?
                    }
                    false => None,
                };
                Ok(Some((user, after)))
            }
            .boxed()
        });
        let (user, after) = begin.await?.ok_or_else(refused)?;
        if let Some(after) = after {
            after();
        }

        tracing::info!(user = %user.id, session = %session.id, address = %session.address, "a user logged in");

        let credential = match kind {
            SessionKind::Cookie => {
                let csrf = model::csrf_token(secret.as_str(), session.id.0).unwrap_or_default();
                Credential::Cookie { cookie: secret, csrf_token: Token::new(csrf) }
            }
            SessionKind::Token => {
                let tenant = self.0.users.scope().tenant();
                let access = signer.sign(tenant, session.user_id.0, session.id.0);
                Credential::Tokens {
                    access_token: Token::new(access),
                    token_type: "Bearer",
                    expires_in: self.0.tokens.lifetime().as_secs(),
                    refresh_token: secret,
                }
            }
        };
        let limited = user.factor_required && session.factor_at.is_none();
        Ok(LoggedIn { credential, user, session, limited })
    }

    /// Whoever it was about, known or not.
    async fn tell_of_refusal(
        &self,
        client: Client,
        user: Option<UserId>,
        code: impl Into<String>,
    ) -> Result<()> {
        let (it, code) = (self.clone(), code.into());
        let tell = self.0.db.transaction(move |conn| {
            async move {
                let scope = it.0.users.scope();
                let user = user.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                let event = Event::new(&it.0.clock, "session.refused", user).denied();
                let event = event.after(&serde_json::json!({ "code": code }));
                emit(conn, &client.scope(scope, "anonymous"), event).await.map_err(Failure::from)
            }
            .boxed()
        });
        tell.await
    }
}

/// The same whatever is wrong.
fn refused() -> Failure {
    let detail = "the e-mail address or the password is wrong, or the account cannot be used now; \
                  try again, or ask an administrator";
    Failure::new(Kind::Unauthenticated, "login_refused", detail)
}
