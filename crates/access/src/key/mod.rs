//! API keys: how programs show who they are. A key is shown once; what is stored is its hash.
//!
//! A key has roles as a user has, and may be limited: to some of their permissions, to networks, to a
//! number of requests a minute, and in time. Every reason to refuse one sounds alike.

pub mod http;
mod model;
mod presented;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use modelyard_kernel::event::emit;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Background, Caller, Clock, Conn, DEPLOYMENT, Db, Event, Failure, Kind, Part, Permission, Proof,
    Result, Scope, Time, Ulid,
};
use tokio::sync::mpsc;

use crate::factor::require_fresh_login;
use crate::identity::{Identity, refused};
use crate::role::Roles;
use crate::{secret, user};

pub use model::MARK;
pub(crate) use model::is_well_formed;
pub use model::{Change, Key, KeyId, KeyPatch, KeyText, NewKey};
use presented::Found;
use store::{KeyRow, Settings, written};

/// May see keys.
pub const READ: Permission = Permission("keys:read");
/// May make, change and revoke keys.
pub const WRITE: Permission = Permission("keys:write");

/// How precise it is known when a key was last used.
const PRECISION: Duration = Duration::from_secs(60);
/// Uses that wait to be written down; more are forgotten, since the next use tells the same.
const WAITING: usize = 1024;

/// The keys of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    db: Db,
    clock: Clock,
    roles: Roles,
    uses: mpsc::Sender<Use>,
}

/// That a key was used.
#[derive(Debug)]
struct Use {
    scope: Scope,
    key: KeyId,
    at: Time,
}

/// Somebody who showed a key, and whether that is to be written down.
#[derive(Debug)]
pub(crate) struct Presented {
    pub(crate) identity: Identity,
    last_used_at: Option<Time>,
}

impl Keys {
    /// Those in a database. `background` has the task that writes down when they were used, which ends
    /// with the last of these handles.
    pub fn new(db: Db, clock: Clock, roles: Roles, background: &Background) -> Self {
        let (uses, waiting) = mpsc::channel(WAITING);
        let stopping = background.stopping().clone();
        let writer = db.clone();
        background.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = write_down(writer, waiting) => {}
            }
        });
        Self { db, clock, roles, uses }
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "keys", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// The present instant, for whoever reads what a request says of times.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// A new key, and its text, which nobody can be told again. One that a user makes may no more than that
    /// user, and is of no use when the user is not.
    ///
    /// # Errors
    /// As [`Roles::give`]; `key_limited`, `step_up_required`.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<(Key, KeyText)> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller) = (self.clone(), caller.clone());
        let create = self.db.transaction(move |conn| {
            async move {
                let caller = it.still(conn, &caller, &scope).await?;
                let NewKey { name, roles, scopes, addresses, per_minute, expires_at } = new;
                let addresses = written(&addresses);
                let settings = Settings { name, scopes, addresses, per_minute, expires_at };
                let maker = maker_in(conn, &scope, &caller).await?;
                let (mut key, text) = it.insert(conn, &caller, maker, &scope, settings).await?;
                it.roles.give(conn, &caller, &scope, key.id.0, &roles).await?;
                key.roles = roles;
                it.tell(conn, &scope, "key.created", None, &key).await?;
                Ok((key, text))
            }
            .boxed()
        });
        create.await
    }

    /// What the caller may now, which writes a key.
    async fn still(&self, conn: &mut Conn, caller: &Caller, scope: &Scope) -> Result<Caller> {
        let caller = self.roles.still(conn, caller, scope, WRITE).await?;
        require_fresh_login(&caller, self.clock.now())?;
        Ok(caller)
    }

    async fn insert(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        maker_id: Option<Ulid>,
        scope: &Scope,
        settings: Settings,
    ) -> Result<(Key, KeyText)> {
        let text = KeyText::of(&secret::random());
        let Settings { name, scopes, addresses, per_minute, expires_at } = settings;
        let row = KeyRow {
            id: KeyId::new(&self.clock),
            name,
            prefix: text.prefix().to_owned(),
            hash: text.hash(),
            scopes,
            addresses,
            per_minute,
            created_by: caller.subject().to_owned(),
            maker_id,
            expires_at,
            now: self.clock.now(),
        };
        Ok((store::insert(conn, scope, row).await?, text))
    }

    /// Whether a tenant has any key, also one that has ended.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn any(&self, tenant: &str) -> Result<bool> {
        let system = Caller::system("keys", tenant, DEPLOYMENT);
        let scope = system.permit_in_deployment(READ)?;
        let mut conn = self.db.conn().await?;
        Ok(ListQuery::all(&http::FIELDS).count(&mut conn, scope).await? > 0)
    }

    /// One key.
    ///
    /// # Errors
    /// `key_missing`.
    pub async fn get(&self, caller: &Caller, id: KeyId) -> Result<Key> {
        let scope = caller.permit_in_deployment(READ)?;
        let mut conn = self.db.conn().await?;
        let key = store::find(&mut conn, scope, id).await?.ok_or_else(|| missing(id))?;
        self.with_roles(&mut conn, scope, key).await
    }

    async fn with_roles(&self, conn: &mut Conn, scope: &Scope, mut key: Key) -> Result<Key> {
        key.roles = self.roles.of(conn, scope, key.id.0).await?;
        Ok(key)
    }

    /// Keys, those that are revoked as well.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Key>> {
        let scope = caller.permit_in_deployment(READ)?;
        let mut conn = self.db.conn().await?;
        let listed: Listed<Key> = query.fetch(&mut conn, scope, Key::COLUMNS).await?;
        let (Listed::All(items) | Listed::Page { items, .. } | Listed::Cursor { items, .. }) =
            &listed;
        let ids: Vec<_> = items.iter().map(|it| it.id.0).collect();
        let mut roles = self.roles.of_many(&mut conn, scope, &ids).await?;
        Ok(listed.map(|key| Key { roles: roles.remove(&key.id.0).unwrap_or_default(), ..key }))
    }

    /// Changes the settings of a key. Only who may do what its roles stand for changes it.
    ///
    /// # Errors
    /// `key_missing`, `key_ended`, `key_is_you`, `key_limited`, `role_beyond_yours`,
    /// `precondition_failed`, `step_up_required`.
    pub async fn update(
        &self,
        caller: &Caller,
        id: KeyId,
        patch: KeyPatch,
        conditions: &Conditions,
    ) -> Result<Key> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller, conditions) = (self.clone(), caller.clone(), conditions.clone());
        let update = self.db.transaction(move |conn| {
            async move {
                let (_, old) = it.lock(conn, &caller, &scope, id, &conditions).await?;
                if old.revoked_at.is_some() {
                    return Err(ended(id));
                }
                let before = serde_json::to_value(&old)?;
                let KeyPatch { name, scopes, addresses, per_minute, expires_at } = patch;
                let settings = Settings {
                    name: name.unwrap_or(old.name),
                    scopes: scopes.of(Some(old.scopes.0)).unwrap_or_default(),
                    addresses: match addresses {
                        Change::Keep => old.addresses.0,
                        Change::Set(new) => written(&new.unwrap_or_default()),
                    },
                    per_minute: per_minute.of(old.per_minute),
                    expires_at: expires_at.of(old.expires_at),
                };
                let key = store::update(conn, &scope, id, settings, it.clock.now()).await?;
                let key = it.with_roles(conn, &scope, key).await?;
                it.tell(conn, &scope, "key.updated", Some(before), &key).await?;
                Ok(key)
            }
            .boxed()
        });
        update.await
    }

    /// Tells the audit of a key.
    async fn tell(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        action: &'static str,
        before: Option<serde_json::Value>,
        key: &Key,
    ) -> Result<()> {
        tell(conn, scope, &self.clock, action, before, key).await
    }

    /// A key that is to be changed, held until the transaction ends, and what the caller may.
    async fn lock(
        &self,
        conn: &mut Conn,
        caller: &Caller,
        scope: &Scope,
        id: KeyId,
        conditions: &Conditions,
    ) -> Result<(Caller, Key)> {
        let caller = self.still(conn, caller, scope).await?;
        not_itself(&caller, id.0)?;
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        self.roles.allow_change_of(conn, &caller, scope, id.0).await?;
        Ok((caller, old))
    }

    /// A new key with the settings and roles of an old one, which ends after `overlap`, or earlier if it
    /// would have anyway. A key is rotated once: what it is told then must not be its end for another.
    ///
    /// # Errors
    /// `key_missing`, `key_ended`, `key_rotated`, `key_is_you`, `key_limited`, `role_beyond_yours`,
    /// `precondition_failed`, `step_up_required`.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: KeyId,
        overlap: Duration,
        conditions: &Conditions,
    ) -> Result<(Key, KeyText)> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, caller, conditions) = (self.clone(), caller.clone(), conditions.clone());
        let rotate = self.db.transaction(move |conn| {
            async move {
                let (caller, old) = it.lock(conn, &caller, &scope, id, &conditions).await?;
                let now = it.clock.now();
                if old.has_ended(now) {
                    return Err(ended(id));
                }
                if old.rotated_at.is_some() {
                    return Err(rotated(id));
                }
                let settings = Settings {
                    name: old.name,
                    scopes: old.scopes.0,
                    addresses: old.addresses.0,
                    per_minute: old.per_minute,
                    expires_at: old.expires_at,
                };
                // Whoever rotates a key has its text from then on.
                let maker = maker_in(conn, &scope, &caller).await?.or(old.maker_id);
                let (key, text) = it.insert(conn, &caller, maker, &scope, settings).await?;
                let roles = it.roles.of(conn, &scope, id.0).await?;
                it.roles.give(conn, &caller, &scope, key.id.0, &roles).await?;
                let end = now.after(overlap);
                let end = old.expires_at.map_or(end, |it| it.min(end));
                let old = store::rotated(conn, &scope, id, end, now).await?;
                let key = Key { roles, ..key };
                it.tell(conn, &scope, "key.rotated", None, &old).await?;
                it.tell(conn, &scope, "key.created", None, &key).await?;
                Ok((key, text))
            }
            .boxed()
        });
        rotate.await
    }

    /// Revokes a key for good. It stays in lists, without roles.
    ///
    /// # Errors
    /// `key_missing`, `precondition_failed`.
    pub async fn revoke(&self, caller: &Caller, id: KeyId, conditions: &Conditions) -> Result<()> {
        let scope = caller.permit_in_deployment(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let revoke = self.db.transaction(move |conn| {
            async move {
                // Not held to what the caller may: whoever finds a stolen key can stop it.
                let old = store::lock(conn, &scope, id).await?.ok_or_else(|| missing(id))?;
                conditions.allow_change(&old.etag())?;
                revoke_in(conn, &it.roles, &it.clock, &scope, &old).await
            }
            .boxed()
        });
        revoke.await
    }

    /// Who presents a key.
    ///
    /// # Errors
    /// `unauthenticated`, in the same words whatever the reason is; when the database refuses.
    pub async fn identify(&self, text: &str, address: Option<IpAddr>) -> Result<Identity> {
        let presented = self.find(text).await?;
        if !presented.identity.admits(address, self.clock.now()) {
            return Err(refused());
        }
        self.used(&presented);
        Ok(presented.identity)
    }

    /// Whose a key is, wherever it is presented.
    ///
    /// # Errors
    /// As [`Keys::identify`].
    pub(crate) async fn find(&self, text: &str) -> Result<Presented> {
        if !is_well_formed(text) {
            return Err(refused());
        }
        let mut conn = self.db.conn().await?;
        let found = presented::find(&mut conn, &model::hash(text)).await?;
        let found = found.ok_or_else(refused)?;
        let (scope, last_used_at) = (scope_of(&found.tenant_id)?, found.last_used_at);
        let identity = identity_in(&mut conn, &self.roles, &scope, found).await?;
        Ok(Presented { identity: identity.ok_or_else(refused)?, last_used_at })
    }

    /// Lets it be written down that a key was used, if that is news. Nobody waits for it.
    pub(crate) fn used(&self, presented: &Presented) {
        let Presented { identity, last_used_at } = presented;
        let at = self.clock.now();
        if last_used_at.is_some_and(|it| at.since(it) < PRECISION) {
            return;
        }
        if let Ok(scope) = scope_of(&identity.tenant) {
            let _the_next_use_tells_it =
                self.uses.try_send(Use { scope, key: KeyId(identity.id), at });
        }
    }
}

/// Who a key is, unless it was revoked, or the user who made it may not come in.
async fn identity_in(
    conn: &mut Conn,
    roles: &Roles,
    scope: &Scope,
    found: Found,
) -> Result<Option<Identity>> {
    if found.revoked_at.is_some() {
        return Ok(None);
    }
    let maker = match found.maker_id {
        Some(maker) if user::active_in(conn, scope, maker).await?.is_none() => return Ok(None),
        Some(maker) => Some(roles.of(conn, scope, maker).await?),
        None => None,
    };
    let bindings = roles.of(conn, scope, found.id.0).await?;
    // One that cannot be read must not be left out: without any, every address is allowed.
    let addresses = found.addresses.0.iter().map(|it| it.parse()).collect::<Result<Vec<_>, _>>();
    Ok(Some(Identity {
        tenant: found.tenant_id,
        subject: format!("key:{}", found.id),
        id: found.id.0,
        user: None,
        proof: Proof::Key { id: found.id.0 },
        bindings,
        maker,
        scopes: found.scopes.0,
        expires_at: found.expires_at,
        addresses: addresses.map_err(Failure::internal)?,
        per_minute: found.per_minute,
    }))
}

/// The same, in the transaction of whatever depends on it.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn find_in(
    conn: &mut Conn,
    roles: &Roles,
    scope: &Scope,
    id: Ulid,
) -> Result<Option<Identity>> {
    match store::found(conn, scope, KeyId(id)).await? {
        Some(found) => identity_in(conn, roles, scope, found).await,
        None => Ok(None),
    }
}

/// The user who makes what a caller makes: itself, or the one who made the key that it shows.
async fn maker_in(conn: &mut Conn, scope: &Scope, caller: &Caller) -> Result<Option<Ulid>> {
    match caller.proof() {
        Proof::Key { id } => {
            Ok(store::find(conn, scope, KeyId(id)).await?.and_then(|it| it.maker_id))
        }
        _ => Ok(caller.user()),
    }
}

/// Revokes the keys that a user made, in the transaction in which it goes.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn revoke_made_by_in(
    conn: &mut Conn,
    roles: &Roles,
    clock: &Clock,
    scope: &Scope,
    maker: Ulid,
) -> Result<()> {
    for key in store::made_by(conn, scope, maker).await? {
        revoke_in(conn, roles, clock, scope, &key).await?;
    }
    Ok(())
}

async fn revoke_in(
    conn: &mut Conn,
    roles: &Roles,
    clock: &Clock,
    scope: &Scope,
    key: &Key,
) -> Result<()> {
    store::revoke(conn, scope, key.id, clock.now()).await?;
    tell(conn, scope, clock, "key.revoked", None, key).await?;
    roles.unbind_key(conn, scope, key.id.0).await
}

/// Tells the audit of a key.
async fn tell(
    conn: &mut Conn,
    scope: &Scope,
    clock: &Clock,
    action: &'static str,
    before: Option<serde_json::Value>,
    key: &Key,
) -> Result<()> {
    let event = Event::new(clock, action, key.id).before(&before).after(key);
    Ok(emit(conn, scope, event.personal(&["addresses"])).await?)
}

/// Whether one of some subjects, of which there is at least one, is a key that has not ended and that no
/// user has made. In the transaction of whatever depends on it.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn any_of_its_own_in(
    conn: &mut Conn,
    scope: &Scope,
    ids: &[Ulid],
    now: Time,
) -> Result<bool> {
    Ok(store::any_of_its_own(conn, scope, ids, now).await?)
}

/// Refuses a key that would change itself: whoever has stolen it would keep it, or have more of it.
///
/// # Errors
/// `key_is_you`.
pub(crate) fn not_itself(caller: &Caller, subject: Ulid) -> Result<()> {
    match caller.proof() {
        Proof::Key { id } if id == subject => {
            let detail = "this is the key that you show; show another, or log in";
            Err(Failure::conflict("key_is_you", detail))
        }
        _ => Ok(()),
    }
}

/// What a key hears that may not give anything, since that would be without its limits.
pub(crate) fn limited() -> Failure {
    let detail = "a key with scopes, addresses, a rate or an end makes and changes no keys and no roles, \
                  which would be without these limits";
    Failure::new(Kind::Denied, "key_limited", detail)
}

fn rotated(id: KeyId) -> Failure {
    let detail = format!("the key {id} was rotated already; rotate the one that took its place");
    Failure::conflict("key_rotated", detail)
}

/// The scope of the keys of a tenant, for whoever finds out who is asking.
fn scope_of(tenant: &str) -> Result<Scope> {
    Caller::system("gate", tenant, DEPLOYMENT).permit_in_deployment(READ).cloned()
}

async fn write_down(db: Db, mut waiting: mpsc::Receiver<Use>) {
    while let Some(Use { scope, key, at }) = waiting.recv().await {
        let written = async {
            let before = at.before(PRECISION);
            store::used(&mut db.conn().await?, &scope, key, at, before).await
        };
        if let Err(error) = written.await {
            tracing::warn!(%key, %error, "it cannot be written down when a key was used");
        }
    }
}

fn missing(id: KeyId) -> Failure {
    Failure::missing("key_missing", format!("there is no key {id}"))
}

fn ended(id: KeyId) -> Failure {
    Failure::conflict("key_ended", format!("the key {id} has ended; create a new one"))
}
