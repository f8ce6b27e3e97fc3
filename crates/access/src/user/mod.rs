//! Users of a tenant: who they are, and whether they may log in. What they may do is the business of
//! their roles.

pub mod http;
mod model;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::FutureExt as _;
use modelyard_kernel::event::emit;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Caller, Clock, Conn, DEPLOYMENT, Db, Event, Failure, Kind, Part, Permission, Proof, Result,
    Scope, Time, Ulid,
};

use crate::factor::require_fresh_login;
use crate::lockout::{Begun, Lockout, Try};
use crate::notice::{AfterCommit, NoNotices, Notice, Notices};
use crate::password::{Password, Passwords};
use crate::role::{Binding, EVERYWHERE, Roles, SYSTEM_ADMIN};
use crate::{key, link, session};

pub(crate) use crate::lockout::{FORGOTTEN, address_lock};
pub(crate) use model::Credentials;
pub use model::{Email, NewUser, User, UserId, UserPatch, UserStatus};
use store::UserRow;

/// May see users.
pub const READ: Permission = Permission("users:read");
/// May make, change and remove users.
pub const WRITE: Permission = Permission("users:write");
/// What of a user is not repeated in the audit.
const PERSONAL: [&str; 2] = ["email", "name"];

/// Whether a change wants that the caller has logged in a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Login,
    FreshLogin,
}

/// The users of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users {
    db: Db,
    clock: Clock,
    roles: Roles,
    passwords: Passwords,
    lockout: Lockout,
    scope: Scope,
    notices: Arc<dyn Notices>,
}

impl Users {
    /// Those in a database. `tenant` is whose users log in.
    pub fn new(db: Db, clock: Clock, roles: Roles, passwords: Passwords, tenant: &str) -> Self {
        let system = Caller::system("access", tenant, DEPLOYMENT);
        let scope = system.permit_in_deployment(WRITE).expect("the system may do everything");
        let (scope, notices) = (scope.clone(), Arc::new(NoNotices));
        let lockout = Lockout::new(db.clone(), clock.clone());
        Self { db, clock, roles, passwords, lockout, scope, notices }
    }

    /// With somebody who tells them what happens to their accounts.
    #[must_use]
    pub fn with_notices(self, notices: Arc<dyn Notices>) -> Self {
        Self { notices, ..self }
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        let counters = vec![self.passwords.computed().clone()];
        Part { name: "users", routes: http::routes(self.clone()), counters, ..Part::default() }
    }

    /// The scope of those who log in, for whoever does it for them.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How passwords are kept.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Who has to wait before it tries again.
    pub(crate) fn lockout(&self) -> &Lockout {
        &self.lockout
    }

    /// Whether there is any user.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn any(&self) -> Result<bool> {
        Ok(store::any(&mut self.db.conn().await?, &self.scope).await?)
    }

    /// The first user, who administers the system. For the command line: nobody may ask for it.
    ///
    /// # Errors
    /// `users_exist` when there is a user already; when the address, the name or the password is
    /// refused.
    pub async fn create_first_admin(
        &self,
        email: &str,
        name: &str,
        password: Password,
    ) -> Result<User> {
        let email = Email::read(email).ok_or_else(|| {
            Failure::bad_request("email_invalid", "an e-mail address is like `ada@example.org`")
        })?;
        let name = model::valid_name(name).ok_or_else(|| {
            let detail = "a name has 1 to 200 characters, and no control characters";
            Failure::bad_request("name_invalid", detail)
        })?;
        if let Some(weak) = self.passwords.weakness(&password, &[email.as_str(), &name]).await? {
            return Err(Failure::bad_request("password_weak", weak.to_string()));
        }
        let hash = self.passwords.hash(&password).await?;
        let new = NewUser { email, name, password: None, factor_required: false };
        let (it, scope) = (self.clone(), self.scope.clone());
        let create = self.db.transaction(move |conn| {
            async move {
                conn.exclusive("access:first-user").await?;
                if store::any(conn, &scope).await? {
                    return Err(Failure::conflict(
                        "users_exist",
                        "there are users already; log in as one who may, and create the user",
                    ));
                }
                let user = it.insert(conn, &scope, new, Some(hash)).await?;
                let role = SYSTEM_ADMIN.to_owned();
                let binding = Binding { role, applies_to: EVERYWHERE.to_owned() };
                it.roles.bind(conn, &scope, user.id.0, &binding).await?;
                Ok(user)
            }
            .boxed()
        });
        create.await
    }

    /// A new user: one with a password may log in, one without is invited.
    ///
    /// # Errors
    /// `email_taken`; when the password is refused; `step_up_required` when there is one.
    pub async fn create(&self, caller: &Caller, new: NewUser) -> Result<User> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let hash = match &new.password {
            Some(it) => Some(self.hash_password(it, &new.email, &new.name, "password").await?),
            None => None,
        };
        let (it, caller) = (self.clone(), caller.clone());
        let create = self.db.transaction(move |conn| {
            async move {
                let caller = it.roles.still(conn, &caller, &scope, WRITE).await?;
                if hash.is_some() {
                    require_fresh_login(&caller, it.clock.now())?;
                }
                it.insert(conn, &scope, new, hash).await
            }
            .boxed()
        });
        create.await
    }

    async fn insert(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        new: NewUser,
        password_hash: Option<String>,
    ) -> Result<User> {
        let NewUser { email, name, password: _, factor_required } = new;
        let status = match password_hash {
            Some(_) => UserStatus::Active,
            None => UserStatus::Invited,
        };
        let (id, now) = (UserId::new(&self.clock), self.clock.now());
        let taken = format!("there is a user with the address {email} already");
        let row = UserRow { id, email, name, status, password_hash, factor_required, now };
        let inserted = store::insert(conn, scope, row).await?;
        let user = inserted.ok_or_else(|| Failure::conflict("email_taken", taken))?;
        let event = Event::new(&self.clock, "user.created", id).after(&user);
        emit(conn, scope, event.personal(&PERSONAL)).await?;
        Ok(user)
    }

    async fn allow_password(
        &self,
        password: &Password,
        email: &Email,
        name: &str,
        field: &str,
    ) -> Result<()> {
        let weakness = self.passwords.weakness(password, &[email.as_str(), name]).await?;
        weakness.map_or(Ok(()), |it| Err(it.refusal(field)))
    }

    /// One user.
    ///
    /// # Errors
    /// `user_missing`.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User> {
        let scope = caller.permit_in_deployment(READ)?;
        self.find_in(&mut self.db.conn().await?, scope, id).await?.ok_or_else(|| missing(id))
    }

    /// One user, in the transaction of whatever else is read.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn find_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: UserId,
    ) -> Result<Option<User>> {
        Ok(store::find(conn, scope, id).await?)
    }

    /// The user with an address, in the transaction of whatever else is read.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn find_by_email_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        email: &Email,
    ) -> Result<Option<User>> {
        let found = store::credentials_by_email(conn, scope, email.as_str(), "").await?;
        match found {
            Some(it) => Ok(store::find(conn, scope, it.id).await?),
            None => Ok(None),
        }
    }

    /// Users.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<User>> {
        let scope = caller.permit_in_deployment(READ)?;
        Ok(query.fetch(&mut self.db.conn().await?, scope, User::COLUMNS).await?)
    }

    /// Changes a user. What is not said stays.
    ///
    /// # Errors
    /// `user_missing`, `precondition_failed`; `role_beyond_yours` when the user may do more than the
    /// caller; `step_up_required` when a second factor is to be required no more.
    pub async fn update(
        &self,
        caller: &Caller,
        id: UserId,
        patch: UserPatch,
        conditions: &Conditions,
    ) -> Result<User> {
        let wants = match patch.factor_required {
            Some(false) => Wants::FreshLogin,
            _ => Wants::Login,
        };
        self.change(caller, id, "user.updated", wants, conditions, move |it, conn, scope, user| {
            async move {
                let UserPatch { name, factor_required } = patch;
                let changed = User {
                    name: name.unwrap_or(user.name),
                    factor_required: factor_required.unwrap_or(user.factor_required),
                    ..user
                };
                Ok(store::update(conn, scope, &changed, it.clock.now()).await?)
            }
            .boxed()
        })
        .await
    }

    /// Keeps a user from logging in, and ends its sessions and links. The keys that it made are of no use
    /// until it is enabled.
    ///
    /// # Errors
    /// As [`Users::update`]; `user_is_you` when it is the caller; `last_admin`; `step_up_required`.
    pub async fn disable(&self, caller: &Caller, id: UserId) -> Result<User> {
        not_yourself(caller, id)?;
        self.change(
            caller,
            id,
            "user.disabled",
            Wants::FreshLogin,
            &Conditions::default(),
            move |it, conn, scope, _| {
                async move {
                    let now = it.clock.now();
                    it.roles.allow_absence_of(conn, scope, id.0).await?;
                    session::end_all_in(conn, scope, id.0, None, now).await?;
                    link::retire_in(conn, scope, id.0, now).await?;
                    Ok(store::disable(conn, scope, id, now).await?)
                }
                .boxed()
            },
        )
        .await
    }

    /// Lets a user log in again, at once: what it did wrong is forgotten.
    ///
    /// # Errors
    /// As [`Users::update`].
    pub async fn enable(&self, caller: &Caller, id: UserId) -> Result<User> {
        self.change(
            caller,
            id,
            "user.enabled",
            Wants::Login,
            &Conditions::default(),
            move |it, conn, scope, user| {
                async move {
                    it.lockout.forget_in(conn, scope, user.email.as_str()).await?;
                    Ok(store::enable(conn, scope, id, it.clock.now()).await?)
                }
                .boxed()
            },
        )
        .await
    }

    /// Removes a user, with its sessions and roles, and revokes the keys that it made.
    ///
    /// # Errors
    /// As [`Users::update`]; `user_is_you` when it is the caller; `last_admin`; `step_up_required`.
    pub async fn delete(&self, caller: &Caller, id: UserId, conditions: &Conditions) -> Result<()> {
        not_yourself(caller, id)?;
        let (deleted, wants) = ("user.deleted", Wants::FreshLogin);
        self.change(caller, id, deleted, wants, conditions, move |it, conn, scope, _| {
            async move {
                key::revoke_made_by_in(conn, &it.roles, &it.clock, scope, id.0).await?;
                it.roles.unbind_all(conn, scope, id.0).await?;
                Ok(store::delete(conn, scope, id).await?)
            }
            .boxed()
        })
        .await
    }

    /// Ends the sessions of a user.
    ///
    /// # Errors
    /// As [`Users::update`].
    pub async fn end_sessions(&self, caller: &Caller, id: UserId) -> Result<()> {
        let (ended, any) = ("user.sessions_ended", Conditions::default());
        self.change(caller, id, ended, Wants::Login, &any, move |it, conn, scope, _| {
            async move { session::end_all_in(conn, scope, id.0, None, it.clock.now()).await }
                .boxed()
        })
        .await
    }

    /// Does a change to a user whom the caller may change, and tells that `action` was done.
    async fn change<T: Send + 'static>(
        &self,
        caller: &Caller,
        id: UserId,
        action: &'static str,
        wants: Wants,
        conditions: &Conditions,
        change: impl for<'c> FnOnce(
            &'c Users,
            &'c mut Conn,
            &'c Scope,
            User,
        ) -> futures_util::future::BoxFuture<'c, Result<T>>
        + Send
        + 'static,
    ) -> Result<T> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, conditions, caller) = (self.clone(), conditions.clone(), caller.clone());
        let done = self.db.transaction(move |conn| {
            async move {
                // Roles are held before users everywhere: two who wait for each other would wait for ever.
                let caller = it.roles.still(conn, &caller, &scope, WRITE).await?;
                if wants == Wants::FreshLogin {
                    require_fresh_login(&caller, it.clock.now())?;
                }
                if caller.user() != Some(id.0) {
                    it.roles.allow_change_of(conn, &caller, &scope, id.0).await?;
                }
                let user = store::lock(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                conditions.allow_change(&user.etag())?;
                let event = Event::new(&it.clock, action, id).before(&user);
                let done = change(&it, conn, &scope, user).await?;
                it.tell_of(conn, &scope, id, event).await?;
                Ok(done)
            }
            .boxed()
        });
        done.await
    }

    /// Tells the audit of a user as it is now.
    async fn tell_of(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: UserId,
        event: Event,
    ) -> Result<()> {
        let now = store::find(conn, scope, id).await?;
        Ok(emit(conn, scope, event.after(&now).personal(&PERSONAL)).await?)
    }

    /// Whoever asks.
    ///
    /// # Errors
    /// `permission_denied` when it is no user.
    pub async fn account(&self, caller: &Caller) -> Result<User> {
        let (scope, id) = caller.permit_own()?;
        let id = UserId(id);
        self.find_in(&mut self.db.conn().await?, scope, id).await?.ok_or_else(|| missing(id))
    }

    /// Changes the name of whoever asks.
    ///
    /// # Errors
    /// `permission_denied` when it is no user.
    pub async fn rename_account(&self, caller: &Caller, name: String) -> Result<User> {
        let (scope, id) = caller.permit_own()?;
        let (it, scope, id) = (self.clone(), scope.clone(), UserId(id));
        let rename = self.db.transaction(move |conn| {
            async move { it.rename_in(conn, &scope, id, name).await }.boxed()
        });
        rename.await
    }

    /// Changes the password of whoever asks, and ends its other sessions.
    ///
    /// # Errors
    /// `password_wrong` when the old one is; when the new one is refused.
    pub async fn change_password(
        &self,
        caller: &Caller,
        old: &Password,
        new: &Password,
    ) -> Result<()> {
        let (scope, id) = caller.permit_own()?;
        let user = self.account(caller).await?;
        self.allow_password(new, &user.email, &user.name, "new_password").await?;
        let (proved, tried) = self.prove(scope, UserId(id), old).await?;
        tried.take_back().await?;
        let hash = self.passwords.hash(new).await?;
        let own = match caller.proof() {
            Proof::Session { id, .. } => Some(id),
            _ => None,
        };
        let (it, scope) = (self.clone(), scope.clone());
        let change = self.db.transaction(move |conn| {
            async move {
                it.replace_proved(conn, &scope, &proved, &hash, own).await?;
                let notice = Notice::PasswordChanged { at: it.clock.now() };
                it.tell(conn, &scope, &user, notice).await
            }
            .boxed()
        });
        let after = change.await?;
        tracing::info!(user = %id, "a user has changed its password");
        if let Some(after) = after {
            after();
        }
        Ok(())
    }

    pub(crate) async fn tell(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: &User,
        notice: Notice,
    ) -> Result<Option<AfterCommit>> {
        self.notices.tell(conn, scope, user, notice).await
    }

    /// Refuses a password that is weak, or hashes it, which takes a while. `field` is what the request has it
    /// in.
    ///
    /// # Errors
    /// `validation_failed`; `passwords_busy` when too many wait.
    pub async fn hash_password(
        &self,
        password: &Password,
        email: &Email,
        name: &str,
        field: &str,
    ) -> Result<String> {
        self.allow_password(password, email, name, field).await?;
        self.passwords.hash(password).await
    }

    /// Gives a user another name, in the transaction of whatever shows that it may.
    ///
    /// # Errors
    /// `user_missing`.
    pub async fn rename_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: UserId,
        name: String,
    ) -> Result<User> {
        let user = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        let event = Event::new(&self.clock, "user.renamed", id).before(&user);
        let user = User { name, ..user };
        let user = store::update(conn, scope, &user, self.clock.now()).await?;
        emit(conn, scope, event.after(&user).personal(&PERSONAL)).await?;
        Ok(user)
    }

    /// Gives a user another password, in the transaction of whatever shows that it may: a mailed link. All
    /// its sessions end. Whoever was invited is active from then on; whoever is disabled stays so.
    ///
    /// # Errors
    /// `user_missing`.
    pub async fn set_password_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        hash: &str,
    ) -> Result<()> {
        self.replace_password(conn, scope, user, hash, None).await?;
        Ok(())
    }

    /// Replaces the password that a user has shown, unless somebody else did while the new one was hashed, by
    /// a mailed link for example.
    async fn replace_proved(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        proved: &Credentials,
        hash: &str,
        own_session: Option<Ulid>,
    ) -> Result<()> {
        let now = self.lock_credentials(conn, scope, proved.id).await?;
        if now.is_none_or(|it| it.password_changed_at != proved.password_changed_at) {
            return Err(wrong_password());
        }
        self.replace_password(conn, scope, proved.id.0, hash, own_session).await
    }

    async fn replace_password(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        hash: &str,
        own_session: Option<Ulid>,
    ) -> Result<()> {
        let now = self.clock.now();
        if !store::set_password(conn, scope, UserId(user), hash, now).await? {
            return Err(missing(UserId(user)));
        }
        if let Some(it) = store::find(conn, scope, UserId(user)).await? {
            self.lockout.forget_in(conn, scope, it.email.as_str()).await?;
        }
        let event = Event::new(&self.clock, "user.password_changed", user);
        self.tell_of(conn, scope, UserId(user), event).await?;
        link::retire_in(conn, scope, user, now).await?;
        session::end_all_in(conn, scope, user, own_session, now).await
    }

    /// Checks the password of a user who is logged in already. Failures count as those of logging in do: it
    /// gives the try as well, which is to be taken back when nothing else is wrong.
    ///
    /// # Errors
    /// `password_wrong` when it is, or when there were too many failures; `logins_exhausted`, `logins_busy`.
    pub(crate) async fn prove(
        &self,
        scope: &Scope,
        id: UserId,
        password: &Password,
    ) -> Result<(Credentials, Arc<Try>)> {
        let found = store::credentials(&mut self.db.conn().await?, scope, id, "").await?;
        let found = found.ok_or_else(wrong_password)?;
        let address = scope.actor().address;
        let Begun::Try(tried) = self.lockout.begin(scope, found.email.as_str(), address).await?
        else {
            return Err(wrong_password());
        };
        let right = match self.passwords.verify(password, found.password_hash.as_deref()).await {
            Ok(right) => right,
            Err(failure) => {
                tried.take_back().await?;
                return Err(failure);
            }
        };
        // Read again: it may have been changed meanwhile.
        let now = store::credentials(&mut self.db.conn().await?, scope, id, "").await?;
        let is_same = |it: &Credentials| it.password_changed_at == found.password_changed_at;
        match now.filter(|it| right && is_same(it) && it.may_log_in()) {
            Some(now) => Ok((now, tried)),
            None => Err(wrong_password()),
        }
    }

    pub(crate) async fn credentials(
        &self,
        scope: &Scope,
        email: &str,
    ) -> Result<Option<Credentials>> {
        Ok(store::credentials_by_email(&mut self.db.conn().await?, scope, email, "").await?)
    }

    /// What is true of a user now, held until the transaction ends.
    pub(crate) async fn lock_credentials(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: UserId,
    ) -> Result<Option<Credentials>> {
        let suffix = conn.for_update();
        Ok(store::credentials(conn, scope, id, suffix).await?)
    }

    pub(crate) async fn note_login(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: UserId,
        hash: Option<&str>,
        now: Time,
    ) -> Result<()> {
        Ok(store::set_login(conn, scope, id, hash, now).await?)
    }
}

/// Whether one of some subjects, of which there is at least one, is a user who may log in. In the
/// transaction of whatever depends on it.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn any_active_in(conn: &mut Conn, scope: &Scope, ids: &[Ulid]) -> Result<bool> {
    Ok(store::any_active(conn, scope, ids).await?)
}

/// A user, if it may log in, in the transaction of whatever depends on it.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn active_in(conn: &mut Conn, scope: &Scope, id: Ulid) -> Result<Option<User>> {
    let found = store::find(conn, scope, UserId(id)).await?;
    Ok(found.filter(|it| it.status == UserStatus::Active))
}

/// Holds a user until the transaction ends, before anything of it is held: everybody does so in this
/// order, so that nobody waits for ever.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn hold_in(conn: &mut Conn, scope: &Scope, id: Ulid) -> Result<()> {
    store::lock(conn, scope, UserId(id)).await?;
    Ok(())
}

fn wrong_password() -> Failure {
    let detail = "the password is wrong, or was wrong too often; try again later";
    Failure::new(Kind::Denied, "password_wrong", detail)
}

fn not_yourself(caller: &Caller, id: UserId) -> Result<()> {
    caller.permit_in_deployment(WRITE)?;
    if caller.user() == Some(id.0) {
        let detail = "this is you; ask another administrator to do it";
        return Err(Failure::conflict("user_is_you", detail));
    }
    Ok(())
}

fn missing(id: UserId) -> Failure {
    Failure::missing("user_missing", format!("there is no user {id}"))
}
