//! Second factors: codes of six digits that an authenticator shows for half a minute each (TOTP, RFC
//! 6238), and recovery codes for when it is lost. Each is good once.

pub mod http;
mod model;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job::Submission;
use modelyard_kernel::{
    Caller, Clock, Conn, Db, Event, Failure, Part, Permission, Proof, Result, Scope, Ulid, event,
};
use parking_lot::Mutex;

use crate::link::Accounts;
use crate::mail::{Letter, Mail, Mails};
use crate::secret::{Secret, random};
use crate::session;
use model::{DIGITS, Factor, SECRET_BYTES, Tries};
pub use model::{
    FRESH, FactorOutcome, FactorSetup, FactorState, RecoveryCodes, require_fresh_login,
    require_fresh_proof,
};

/// May take a second factor from another user.
pub const RESET: Permission = Permission("users:write");

/// The second factors of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Factors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    secret: Secret,
    accounts: Arc<dyn Accounts>,
    mails: Mails,
    tries: Mutex<Tries>,
    /// Of codes that are to confirm a factor: whoever has a stolen session keeps nobody from logging in.
    confirmations: Mutex<Tries>,
}

impl Factors {
    /// Those in a database, sealed with `secret`. Users hear of changes by mail.
    pub fn new(
        db: Db,
        clock: Clock,
        secret: Secret,
        accounts: Arc<dyn Accounts>,
        mails: Mails,
    ) -> Self {
        let (tries, confirmations) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { db, clock, secret, accounts, mails, tries, confirmations }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "factors", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Removes the factors of everybody, in the transaction in which the secret that sealed them is given
    /// up. Gives how many there were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn remove_all_in(&self, conn: &mut Conn, scope: &Scope) -> Result<u64> {
        Ok(store::delete_all(conn, scope).await?)
    }

    /// The state of the caller's own.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn get(&self, caller: &Caller) -> Result<FactorState> {
        let (scope, user) = caller.permit_own()?;
        let mut conn = self.0.db.conn().await?;
        let found = store::find(&mut conn, scope, user).await?;
        let confirmed_at = found.as_ref().and_then(|it| it.confirmed_at);
        Ok(FactorState {
            enabled: confirmed_at.is_some(),
            pending: found.is_some() && confirmed_at.is_none(),
            confirmed_at,
            recovery_codes_left: store::codes_left(&mut conn, scope, user).await?,
        })
    }

    /// A new secret for the caller's authenticator. It is not asked for before [`Factors::confirm`];
    /// until then another one may take its place.
    ///
    /// # Errors
    /// `factor_taken` when there is one already; `step_up_required`.
    pub async fn begin(&self, caller: &Caller) -> Result<FactorSetup> {
        let (scope, user) = caller.permit_own()?;
        let now = self.0.clock.now();
        // Whoever has a stolen session must not lock out its owner.
        require_fresh_proof(caller, now)?;
        let mut conn = self.0.db.conn().await?;
        let account = self.0.accounts.find(&mut conn, scope, user).await?;
        let account = account.ok_or_else(|| crate::link::user_missing(user))?;
        let secret = zeroize::Zeroizing::new(random::<SECRET_BYTES>());
        let setup = FactorSetup::new(&*secret, self.0.mails.product(), &account.email)?;
        let sealed = self.0.secret.seal(&sealed_as(user), &*secret)?;
        drop(conn);
        let (it, scope) = (self.clone(), scope.clone());
        let begin = self.0.db.transaction(move |conn| {
            async move {
                if !store::begin(conn, &scope, user, sealed, now).await? {
                    return Err(taken());
                }
                it.emit(conn, &scope, "factor.begun", user).await
            }
            .boxed()
        });
        begin.await?;
        Ok(setup)
    }

    /// Asks for codes from now on, since the caller's authenticator showed a right one. Its other sessions
    /// end, since they have shown none. Gives the recovery codes.
    ///
    /// # Errors
    /// `code_wrong`, `codes_refused`, `factor_missing`, `factor_taken`.
    pub async fn confirm(&self, caller: &Caller, code: &str) -> Result<RecoveryCodes> {
        let (scope, user) = caller.permit_own()?;
        let session = match caller.proof() {
            Proof::Session { id, .. } => Some(id),
            _ => None,
        };
        let (it, scope, code) = (self.clone(), scope.clone(), model::plain(code));
        let tenant = scope.tenant().to_owned();
        let confirm = self.0.db.transaction(move |conn| {
            async move {
                let now = it.0.clock.now();
                let factor = store::lock(conn, &scope, user).await?.ok_or_else(missing)?;
                if factor.confirmed_at.is_some() {
                    return Err(taken());
                }
                it.0.confirmations.lock().begin(scope.tenant(), user, now)?;
                let step = it.step(user, &factor, &code)?.ok_or_else(wrong)?;
                store::confirm(conn, &scope, user, step, now).await?;
                session::end_all_in(conn, &scope, user, session, now).await?;
                if let Some(session) = session {
                    session::note_factor_in(conn, &scope, session, now).await?;
                }
                let codes = it.renew(conn, &scope, user).await?;
                it.emit(conn, &scope, "factor.confirmed", user).await?;
                Ok((codes, it.tell(conn, &scope, user, "is now asked for").await?))
            }
            .boxed()
        });
        let (codes, mail) = confirm.await?;
        self.0.confirmations.lock().right(&tenant, user);
        self.0.mails.wake(mail);
        Ok(codes)
    }

    /// New recovery codes for the caller; the old ones are no longer good.
    ///
    /// # Errors
    /// `factor_missing`, `step_up_required`.
    pub async fn renew_recovery_codes(&self, caller: &Caller) -> Result<RecoveryCodes> {
        let (scope, user) = caller.permit_own()?;
        require_fresh_proof(caller, self.0.clock.now())?;
        let (it, scope) = (self.clone(), scope.clone());
        let renew = self.0.db.transaction(move |conn| {
            async move {
                let factor = store::lock(conn, &scope, user).await?;
                factor.filter(|it| it.confirmed_at.is_some()).ok_or_else(missing)?;
                let codes = it.renew(conn, &scope, user).await?;
                it.emit(conn, &scope, "factor.codes_renewed", user).await?;
                Ok((codes, it.tell(conn, &scope, user, "has new recovery codes").await?))
            }
            .boxed()
        });
        let (codes, mail) = renew.await?;
        self.0.mails.wake(mail);
        Ok(codes)
    }

    async fn renew(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<RecoveryCodes> {
        let codes = model::new_recovery_codes();
        let hashes = codes.recovery_codes.iter().map(|it| model::hash(&model::plain(it)));
        store::put_codes(conn, scope, user, hashes.collect()).await?;
        Ok(codes)
    }

    /// Asks the caller for codes no longer.
    ///
    /// # Errors
    /// `factor_missing`, `step_up_required`.
    pub async fn delete(&self, caller: &Caller) -> Result<()> {
        let (scope, user) = caller.permit_own()?;
        require_fresh_proof(caller, self.0.clock.now())?;
        self.remove(caller, scope, user).await
    }

    /// Takes the factor of a user who has lost it.
    ///
    /// # Errors
    /// `factor_missing`, `step_up_required`, `permission_denied`.
    pub async fn reset(&self, caller: &Caller, user: Ulid) -> Result<()> {
        let scope = caller.permit_in_deployment(RESET)?;
        // The command line is the service itself, which has no session.
        if caller.proof() != Proof::System {
            require_fresh_proof(caller, self.0.clock.now())?;
        }
        self.remove(caller, scope, user).await
    }

    async fn remove(&self, caller: &Caller, scope: &Scope, user: Ulid) -> Result<()> {
        let (it, scope, caller) = (self.clone(), scope.clone(), caller.clone());
        let remove = self.0.db.transaction(move |conn| {
            async move {
                if caller.user() != Some(user) {
                    it.0.accounts.permit_change(conn, &scope, &caller, user).await?;
                }
                if !store::delete(conn, &scope, user).await? {
                    return Err(missing());
                }
                session::forget_factor_in(conn, &scope, user).await?;
                it.emit(conn, &scope, "factor.removed", user).await?;
                it.tell(conn, &scope, user, "was removed").await
            }
            .boxed()
        });
        self.0.mails.wake(remove.await?);
        Ok(())
    }

    /// Looks at the code that somebody gave at a login, who has shown a password before: of the
    /// authenticator or a recovery code. A right one is used thereby.
    ///
    /// # Errors
    /// `codes_refused` after too many wrong ones.
    pub async fn check(
        &self,
        scope: &Scope,
        user: Ulid,
        code: Option<&str>,
    ) -> Result<FactorOutcome> {
        let mut conn = self.0.db.conn().await?;
        let factor = store::find(&mut conn, scope, user).await?;
        let Some(factor) = factor.filter(|it| it.confirmed_at.is_some()) else {
            return Ok(FactorOutcome::NotSet);
        };
        let Some(code) = code.map(model::plain).filter(|it| !it.is_empty()) else {
            return Ok(FactorOutcome::Missing);
        };
        let now = self.0.clock.now();
        self.0.tries.lock().begin(scope.tenant(), user, now)?;
        let right = if model::is_by_time(&code) {
            match self.step(user, &factor, &code)? {
                Some(step) => store::use_step(&mut conn, scope, user, step).await?,
                None => false,
            }
        } else {
            store::use_code(&mut conn, scope, user, model::hash(&code), now).await?
        };
        if !right {
            return Ok(FactorOutcome::Wrong);
        }
        self.0.tries.lock().right(scope.tenant(), user);
        Ok(FactorOutcome::Right(now))
    }

    fn step(&self, user: Ulid, factor: &Factor, code: &str) -> Result<Option<i64>> {
        let secret = self.0.secret.open(&sealed_as(user), &factor.secret)?;
        Ok(model::matching_step(&secret, DIGITS, code, self.0.clock.now()))
    }

    /// Tells the audit of a change to the factor of a user.
    async fn emit(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        action: &'static str,
        user: Ulid,
    ) -> Result<()> {
        Ok(event::emit(conn, scope, Event::new(&self.0.clock, action, user)).await?)
    }

    /// Tells the user that something has changed.
    async fn tell(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        change: &'static str,
    ) -> Result<Option<Submission>> {
        let Some(account) = self.0.accounts.find(conn, scope, user).await? else {
            return Ok(None);
        };
        let letter = Letter::FactorChanged { change, at: self.0.clock.now() };
        let mail = Mail { to: account.email, name: account.name, letter };
        self.0.mails.notify(conn, scope, mail).await
    }
}

/// What a secret is sealed as: nobody can use that of another user.
fn sealed_as(user: Ulid) -> String {
    format!("factor:{user}")
}

fn wrong() -> Failure {
    Failure::bad_request("code_wrong", "the code is wrong, or it was used before")
}

fn missing() -> Failure {
    Failure::missing("factor_missing", "there is no second factor")
}

fn taken() -> Failure {
    let detail = "there is a second factor already, remove it before you set another";
    Failure::conflict("factor_taken", detail)
}
