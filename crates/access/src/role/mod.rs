//! Roles: names for what somebody may do. Some come with the program, others are a tenant's own. A
//! subject, which is a user or a key, has a role everywhere or in one service.
//!
//! Nobody gives or changes more than they have: whoever makes a role, or gives or takes one, may do in
//! the deployment all that the role stands for.

pub mod http;
mod model;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::event::emit;
use modelyard_kernel::form::{Loc, Violation};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Caller, Clock, Conn, DEPLOYMENT, Db, Event, Failure, Kind, Part, Permission, Proof, Result,
    Scope, Time, Ulid,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::factor::require_fresh_login;
use crate::identity::Identity;
use crate::{key, session, user};
pub(crate) use model::read_patterns;
pub use model::{
    Binding, EVERYWHERE, NewRole, PERMISSIONS, Role, RoleBook, Rules, SYSTEM_ADMIN,
    UnknownPermission, VIEWER, built_in, is_built_in,
};

/// May see roles, and who has them.
pub const READ: Permission = Permission("roles:read");
/// May make, change and give roles.
pub const WRITE: Permission = Permission("roles:write");

/// How long the roles of a tenant are believed: a change is known to every process within a second.
const BELIEVED: Duration = Duration::from_millis(800);
/// Tenants whose roles are remembered.
const MOST: usize = 1000;

/// The roles of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    books: Mutex<HashMap<String, (Instant, Arc<RoleBook>)>>,
    /// What the services say of roles.
    rules: Mutex<Vec<Rules>>,
}

impl Roles {
    /// Those in a database.
    pub fn new(db: Db, clock: Clock) -> Self {
        let (books, rules) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { db, clock, books, rules }))
    }

    /// Has a role stand for what a service ties to its name as well: who makes or gives it must have that.
    pub fn heed(&self, rules: Rules) {
        if !rules.is_empty() {
            self.0.rules.lock().push(rules);
        }
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "roles", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Every role: those of the program, then those of the tenant by name.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Role>> {
        let scope = caller.permit_in_deployment(READ)?;
        let own = store::all(&mut self.0.db.conn().await?, scope).await?;
        Ok(built_in().chain(own).collect())
    }

    /// One role.
    ///
    /// # Errors
    /// `role_missing`.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Role> {
        may_be(name)?;
        let scope = caller.permit_in_deployment(READ)?;
        if let Some(role) = built_in().find(|it| it.name == name) {
            return Ok(role);
        }
        let found = store::find(&mut self.0.db.conn().await?, scope, name).await?;
        found.ok_or_else(|| missing(name))
    }

    /// A new role of the tenant.
    ///
    /// # Errors
    /// `role_taken`; `validation_failed` when it inherits from a role that is not there;
    /// `role_beyond_yours`; `roles_full`.
    pub async fn create(&self, caller: &Caller, new: NewRole) -> Result<Role> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller, tenant) = (self.clone(), caller.clone(), scope.tenant().to_owned());
        let create = self.0.db.transaction(move |conn| {
            async move {
                let caller = it.still(conn, &caller, &scope, WRITE).await?;
                require_fresh_login(&caller, it.0.clock.now())?;
                let own = store::all(conn, &scope).await?;
                if own.len() >= model::MOST_ROLES {
                    let most = model::MOST_ROLES;
                    let detail = format!("there are {most} roles already; delete one first");
                    return Err(Failure::conflict("roles_full", detail));
                }
                let book = RoleBook::new(own);
                if book.has(&new.name) {
                    let detail = format!("there is a role `{}` already", new.name);
                    return Err(Failure::conflict("role_taken", detail));
                }
                it.allow_content(&caller, &book, &new)?;
                let role = store::insert(conn, &scope, new, it.0.clock.now()).await?;
                let event = Event::new(&it.0.clock, "role.created", &role.name).after(&role);
                emit(conn, &scope, event).await?;
                Ok(role)
            }
            .boxed()
        });
        let role = create.await?;
        self.forget(&tenant);
        Ok(role)
    }

    /// Replaces what a role of the tenant is; it keeps its name.
    ///
    /// # Errors
    /// `role_missing`, `role_built_in`, `role_beyond_yours`, `precondition_failed`;
    /// `validation_failed` when it inherits from a role that is not there, or from itself.
    pub async fn update(
        &self,
        caller: &Caller,
        new: NewRole,
        conditions: &Conditions,
    ) -> Result<Role> {
        may_be(&new.name)?;
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller, tenant) = (self.clone(), caller.clone(), scope.tenant().to_owned());
        let conditions = conditions.clone();
        let update = self.0.db.transaction(move |conn| {
            async move {
                let caller = it.still(conn, &caller, &scope, WRITE).await?;
                require_fresh_login(&caller, it.0.clock.now())?;
                let old = find_own(conn, &scope, &new.name).await?;
                conditions.allow_change(&old.etag())?;
                let book = RoleBook::new(store::all(conn, &scope).await?);
                it.allow(&caller, &book, &new.name)?;
                it.allow_content(&caller, &book, &new)?;
                let inherited = book.closure(new.inherits.iter().map(String::as_str));
                if inherited.contains(new.name.as_str()) {
                    let sentence = format!("The role `{}` would inherit from itself", new.name);
                    return Err(wrong(&["body", "inherits"], &json!(new.inherits), &sentence));
                }
                let role = store::update(conn, &scope, new, it.0.clock.now()).await?;
                let event = Event::new(&it.0.clock, "role.updated", &role.name);
                emit(conn, &scope, event.before(&old).after(&role)).await?;
                Ok(role)
            }
            .boxed()
        });
        let role = update.await?;
        self.forget(&tenant);
        Ok(role)
    }

    /// Removes a role of the tenant that nobody has, and no role inherits from.
    ///
    /// # Errors
    /// `role_missing`, `role_built_in`, `role_bound`, `role_inherited`, `precondition_failed`.
    pub async fn delete(&self, caller: &Caller, name: &str, conditions: &Conditions) -> Result<()> {
        may_be(name)?;
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (name, tenant) = (name.to_owned(), scope.tenant().to_owned());
        let (it, caller, conditions) = (self.clone(), caller.clone(), conditions.clone());
        let delete = self.0.db.transaction(move |conn| {
            async move {
                let caller = it.still(conn, &caller, &scope, WRITE).await?;
                require_fresh_login(&caller, it.0.clock.now())?;
                let old = find_own(conn, &scope, &name).await?;
                conditions.allow_change(&old.etag())?;
                let own = store::all(conn, &scope).await?;
                if let Some(heir) = own.iter().find(|it| it.inherits.0.contains(&name)) {
                    let detail =
                        format!("the role `{}` inherits from it; change that first", heir.name);
                    return Err(Failure::conflict("role_inherited", detail));
                }
                if store::is_bound(conn, &scope, &name).await? {
                    let detail = "somebody has this role; take it away first";
                    return Err(Failure::conflict("role_bound", detail));
                }
                store::delete(conn, &scope, &name).await?;
                let event = Event::new(&it.0.clock, "role.deleted", name).before(&old);
                Ok(emit(conn, &scope, event).await?)
            }
            .boxed()
        });
        delete.await?;
        self.forget(&tenant);
        Ok(())
    }

    /// The roles that a subject has.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn bindings(&self, caller: &Caller, subject: Ulid) -> Result<Vec<Binding>> {
        let scope = caller.permit_in_deployment(READ)?;
        self.of(&mut self.0.db.conn().await?, scope, subject).await
    }

    /// Replaces the roles that a subject has.
    ///
    /// # Errors
    /// As [`Roles::give`].
    pub async fn replace_bindings(
        &self,
        caller: &Caller,
        subject: Ulid,
        wanted: Vec<Binding>,
    ) -> Result<Vec<Binding>> {
        self.change_bindings(caller, subject, move |_| wanted).await
    }

    /// Gives a subject one more role.
    ///
    /// # Errors
    /// As [`Roles::give`].
    pub async fn add_binding(
        &self,
        caller: &Caller,
        subject: Ulid,
        new: Binding,
    ) -> Result<Vec<Binding>> {
        self.change_bindings(caller, subject, move |mut had| {
            if !had.contains(&new) {
                had.push(new);
            }
            had
        })
        .await
    }

    /// Takes one role from a subject, if it has it.
    ///
    /// # Errors
    /// As [`Roles::give`].
    pub async fn remove_binding(
        &self,
        caller: &Caller,
        subject: Ulid,
        old: Binding,
    ) -> Result<Vec<Binding>> {
        self.change_bindings(caller, subject, move |mut had| {
            had.retain(|it| *it != old);
            had
        })
        .await
    }

    async fn change_bindings(
        &self,
        caller: &Caller,
        subject: Ulid,
        change: impl FnOnce(Vec<Binding>) -> Vec<Binding> + Send + 'static,
    ) -> Result<Vec<Binding>> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller) = (self.clone(), caller.clone());
        let replace = self.0.db.transaction(move |conn| {
            async move {
                // Before it is read what there is: two who add a role at the same time both do.
                let caller = it.still(conn, &caller, &scope, WRITE).await?;
                require_fresh_login(&caller, it.0.clock.now())?;
                key::not_itself(&caller, subject)?;
                let wanted = change(it.of(conn, &scope, subject).await?);
                it.give(conn, &caller, &scope, subject, &wanted).await?;
                it.of(conn, &scope, subject).await
            }
            .boxed()
        });
        replace.await
    }

    /// What somebody may now, in the transaction of what it does: the gate has believed it for a while, and
    /// what is given here would outlast that. Holds the roles until the transaction ends, so that nobody
    /// takes any of it away before. A key that is limited writes no keys and no roles, since those would be
    /// without its limits.
    ///
    /// # Errors
    /// `permission_denied` when it may not any more; `key_limited`.
    pub async fn still(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        scope: &Scope,
        permission: Permission,
    ) -> Result<Caller> {
        hold(conn, scope).await?;
        let found = match caller.proof() {
            // Nobody takes anything away from these.
            Proof::None | Proof::System | Proof::Setting => return Ok(caller.clone()),
            Proof::Key { id } => key::find_in(conn, self, scope, id).await?,
            Proof::Session { id, .. } => self.logged_in(conn, caller, scope, id).await?,
        };
        let now = self.0.clock.now();
        let found = found.filter(|it| it.expires_at.is_none_or(|it| it > now));
        let found = found.ok_or_else(|| Failure::denied(permission))?;
        let book = RoleBook::new(store::all(conn, scope).await?);
        let caller = caller
            .clone()
            .with_deployment_grants(found.deployment_grants(&book))
            .with_proof(found.proof, found.user);
        caller.permit_in_deployment(permission)?;
        if [WRITE, key::WRITE].contains(&permission) && found.is_limited() {
            return Err(key::limited());
        }
        Ok(caller)
    }

    /// Who is behind a session, as long as it and its user are good.
    async fn logged_in(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        scope: &Scope,
        session: Ulid,
    ) -> Result<Option<Identity>> {
        let proof = session::proof_in(conn, scope, session, self.0.clock.now()).await?;
        let Some((id, proof)) = caller.user().zip(proof) else { return Ok(None) };
        let Some(user) = user::active_in(conn, scope, id).await? else { return Ok(None) };
        let bindings = self.of(conn, scope, id).await?;
        let identity = Identity::of_user(scope.tenant(), id, proof, bindings);
        Ok((!identity.lacks_factor(user.factor_required)).then_some(identity))
    }

    /// Makes `wanted` the roles of a subject, in the transaction of whatever else is changed, which has asked
    /// what the caller may [still](Roles::still). What stays as it is need not be what the caller has.
    ///
    /// # Errors
    /// `validation_failed` when there is no such role; `role_beyond_yours` when one that is given or
    /// taken away stands for more than the caller may; `last_admin`.
    pub async fn give(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        scope: &Scope,
        subject: Ulid,
        wanted: &[Binding],
    ) -> Result<()> {
        hold(conn, scope).await?;
        let book = RoleBook::new(store::all(conn, scope).await?);
        if let Some(unknown) = wanted.iter().find(|it| !book.has(&it.role)) {
            return Err(unknown_role(&["body"], &unknown.role));
        }
        let had = store::bindings(conn, scope, subject).await?;
        for binding in had.iter().filter(|it| !wanted.contains(it)) {
            self.allow(caller, &book, &binding.role)?;
            if binding.is_admin() {
                keep_an_admin(conn, scope, subject, self.0.clock.now()).await?;
            }
            store::unbind(conn, scope, subject, binding).await?;
            let event = Event::new(&self.0.clock, "role.unbound", subject).before(binding);
            emit(conn, scope, event).await?;
        }
        for binding in wanted.iter().filter(|it| !had.contains(it)) {
            self.allow(caller, &book, &binding.role)?;
            self.bind(conn, scope, subject, binding).await?;
        }
        Ok(())
    }

    /// Whether a caller may do all that a subject may by its roles: who changes what somebody else may
    /// show must not gain by it.
    ///
    /// # Errors
    /// `role_beyond_yours`.
    pub async fn allow_change_of(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        scope: &Scope,
        subject: Ulid,
    ) -> Result<()> {
        hold(conn, scope).await?;
        let book = RoleBook::new(store::all(conn, scope).await?);
        for binding in store::bindings(conn, scope, subject).await? {
            self.allow(caller, &book, &binding.role)?;
        }
        Ok(())
    }

    /// Whether a role is none but what the caller may, also by the rules of services that name it.
    fn allow(&self, caller: &Caller, book: &RoleBook, role: &str) -> Result<()> {
        let roles = book.closure([role]);
        self.allow_tied(caller, role, &roles)?;
        match book.patterns([role]).into_iter().find(|it| !caller.covers_in_deployment(it)) {
            Some(pattern) => Err(beyond(role, pattern)),
            None => Ok(()),
        }
    }

    /// Whether the caller may what the services tie to the names of `roles`, which `role` stands for.
    fn allow_tied(&self, caller: &Caller, role: &str, roles: &BTreeSet<&str>) -> Result<()> {
        let rules = self.0.rules.lock();
        let mut tied = rules.iter().flat_map(|it| it.tied_to(roles));
        match tied.find(|it| !caller.covers_in_deployment(it)) {
            Some(permission) => Err(beyond(role, permission)),
            None => Ok(()),
        }
    }

    /// Whether what a role is to be is none but what the caller may, and comes from roles that exist.
    fn allow_content(&self, caller: &Caller, book: &RoleBook, new: &NewRole) -> Result<()> {
        if let Some(unknown) = new.inherits.iter().find(|it| !book.has(it)) {
            return Err(unknown_role(&["body", "inherits"], unknown));
        }
        if let Some(it) = new.permissions.iter().find(|it| !caller.covers_in_deployment(it)) {
            return Err(beyond(&new.name, it));
        }
        self.allow_tied(caller, &new.name, &BTreeSet::from([new.name.as_str()]))?;
        new.inherits.iter().try_for_each(|it| self.allow(caller, book, it))
    }

    /// Every role of a tenant.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn book(&self, scope: &Scope) -> Result<Arc<RoleBook>> {
        if let Some(book) = self.known_book(scope.tenant()) {
            return Ok(book);
        }
        let asked_at = Instant::now();
        let own = store::all(&mut self.0.db.conn().await?, scope).await?;
        let book = Arc::new(RoleBook::new(own));
        let mut books = self.0.books.lock();
        if books.len() >= MOST {
            books.clear();
        }
        books.insert(scope.tenant().to_owned(), (asked_at, Arc::clone(&book)));
        Ok(book)
    }

    /// Every role of a tenant, for whoever finds out who is asking and has no scope yet.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn book_of(&self, tenant: &str) -> Result<Arc<RoleBook>> {
        let gate = Caller::system("gate", tenant, DEPLOYMENT);
        self.book(gate.permit_in_deployment(READ)?).await
    }

    /// Every role of a tenant, if they were read a moment ago.
    pub fn known_book(&self, tenant: &str) -> Option<Arc<RoleBook>> {
        let books = self.0.books.lock();
        let (at, book) = books.get(tenant)?;
        (at.elapsed() < BELIEVED).then(|| Arc::clone(book))
    }

    fn forget(&self, tenant: &str) {
        self.0.books.lock().remove(tenant);
    }

    /// The roles that a subject has.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn of(&self, conn: &mut Conn, scope: &Scope, subject: Ulid) -> Result<Vec<Binding>> {
        Ok(store::bindings(conn, scope, subject).await?)
    }

    /// The roles that each of several subjects has; none for those that have none.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn of_many(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        subjects: &[Ulid],
    ) -> Result<HashMap<Ulid, Vec<Binding>>> {
        let mut all: HashMap<Ulid, Vec<Binding>> = HashMap::new();
        for (subject, binding) in store::bindings_of_many(conn, scope, subjects).await? {
            all.entry(subject).or_default().push(binding);
        }
        Ok(all)
    }

    /// Gives a subject a role, in the transaction of whatever else is changed; whoever may is up to the
    /// caller.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn bind(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        subject: Ulid,
        binding: &Binding,
    ) -> Result<()> {
        store::bind(conn, scope, subject, binding, self.0.clock.now()).await?;
        let event = Event::new(&self.0.clock, "role.bound", subject).after(binding);
        Ok(emit(conn, scope, event).await?)
    }

    /// Takes all roles of a subject away, in the transaction in which it goes.
    ///
    /// # Errors
    /// `last_admin`.
    pub async fn unbind_all(&self, conn: &mut Conn, scope: &Scope, subject: Ulid) -> Result<()> {
        self.allow_absence_of(conn, scope, subject).await?;
        self.unbind_key(conn, scope, subject).await
    }

    /// Whether somebody else is `system-admin` if a subject is, for a transaction after which it cannot
    /// come in any more.
    ///
    /// # Errors
    /// `last_admin`.
    pub async fn allow_absence_of(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        subject: Ulid,
    ) -> Result<()> {
        hold(conn, scope).await?;
        if store::bindings(conn, scope, subject).await?.iter().any(Binding::is_admin) {
            keep_an_admin(conn, scope, subject, self.0.clock.now()).await?;
        }
        Ok(())
    }

    /// As [`Roles::unbind_all`], but also of the last that has a role: a key that somebody has stolen
    /// can always be revoked.
    ///
    /// # Errors
    /// When the database refuses.
    pub(crate) async fn unbind_key(&self, conn: &mut Conn, scope: &Scope, key: Ulid) -> Result<()> {
        for binding in store::bindings(conn, scope, key).await? {
            let event = Event::new(&self.0.clock, "role.unbound", key).before(&binding);
            emit(conn, scope, event).await?;
        }
        Ok(store::unbind_all(conn, scope, key).await?)
    }
}

/// Holds the roles of a tenant and who has them until the transaction ends: what may be changed depends
/// on all of them.
async fn hold(conn: &mut Conn, scope: &Scope) -> Result<()> {
    Ok(conn.exclusive(&format!("roles:{}", scope.tenant())).await?)
}

/// A role that can be changed, held until the transaction ends.
async fn find_own(conn: &mut Conn, scope: &Scope, name: &str) -> Result<Role> {
    if is_built_in(name) {
        let detail = format!("the role `{name}` comes with the program and stays as it is");
        return Err(Failure::conflict("role_built_in", detail));
    }
    hold(conn, scope).await?;
    store::find(conn, scope, name).await?.ok_or_else(|| missing(name))
}

/// Whether somebody else has that role who can come in: neither a user who is disabled, or was never
/// here, nor a key that has ended, nor one that a user has made, since it may no more than that user.
async fn keep_an_admin(conn: &mut Conn, scope: &Scope, but: Ulid, now: Time) -> Result<()> {
    let others = store::others_with(conn, scope, &Binding::everywhere(SYSTEM_ADMIN), but).await?;
    for some in others.chunks(store::AT_ONCE) {
        if user::any_active_in(conn, scope, some).await?
            || key::any_of_its_own_in(conn, scope, some, now).await?
        {
            return Ok(());
        }
    }
    let detail = "nobody else who can come in is `system-admin`; give that role to somebody first";
    Err(Failure::conflict("last_admin", detail))
}

/// No role has a name that no role can have, and no database is asked for one.
fn may_be(name: &str) -> Result<()> {
    if model::is_name(name) { Ok(()) } else { Err(missing(name)) }
}

fn missing(name: &str) -> Failure {
    let name = modelyard_kernel::form::shorten(name);
    Failure::missing("role_missing", format!("there is no role `{name}`"))
}

fn beyond(role: &str, pattern: &str) -> Failure {
    let detail = format!(
        "the role `{role}` stands for `{pattern}`, which you may not: nobody gives or changes more than \
         they have"
    );
    Failure::new(Kind::Denied, "role_beyond_yours", detail)
}

fn unknown_role(place: &[&str], name: &str) -> Failure {
    let shown = modelyard_kernel::form::shorten(name);
    wrong(place, &json!(name), &format!("There is no role `{shown}`"))
}

/// A violation that only the database knows of.
fn wrong(place: &[&str], input: &Value, sentence: &str) -> Failure {
    let place = place.iter().map(|it| Loc::Key((*it).to_owned())).collect();
    let (message, context) = (format!("Value error, {sentence}"), json!({"error": {}}));
    Failure::violations(vec![Violation::new("value_error", place, message, input, Some(context))])
}
