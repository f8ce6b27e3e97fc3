//! Access tokens: what programs show instead of a password, for some minutes. And the keys that sign
//! them, of which one signs and those before it are believed until their tokens have ended.

pub mod http;
mod jws;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use modelyard_kernel::event::emit;
use modelyard_kernel::{
    Caller, Clock, Conn, DEPLOYMENT, Db, Event, Failure, Part, Permission, Proof, Result, Scope,
    Time, Ulid,
};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::factor::require_fresh_login;
use crate::secret::Secret;
use crate::session;
pub use jws::{Claims, Refused};
use store::KeyRow;

/// May make the keys that sign tokens anew.
pub const ROTATE: Permission = Permission("signing_keys:write");

/// How long keys are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How soon they are read again for a key that nobody knows.
const LOOKED: Duration = Duration::from_millis(200);

/// How tokens are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who makes them: the address of the deployment.
    pub issuer: String,
    /// For whom.
    pub audience: String,
    /// How long they are believed.
    pub lifetime: Duration,
    /// How long a key signs.
    pub rotate_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            issuer: "modelyard".to_owned(),
            audience: "modelyard".to_owned(),
            lifetime: Duration::from_secs(10 * 60),
            rotate_after: Duration::from_secs(90 * 24 * 60 * 60),
        }
    }
}

/// Makes tokens and reads them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    secret: Secret,
    scope: Scope,
    options: Options,
    ring: Mutex<Option<(Time, Arc<[Key]>)>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// A key that was opened.
#[derive(Clone)]
struct Key {
    kid: String,
    pair: Arc<Ed25519KeyPair>,
    created_at: Time,
    retired_at: Option<Time>,
}

impl Key {
    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

/// Signs tokens of a moment.
pub(crate) struct Signer {
    key: Key,
    tokens: Tokens,
}

impl Signer {
    /// A token for a session.
    pub(crate) fn sign(&self, tenant: &str, user: Ulid, session: Ulid) -> String {
        let Inner { clock, options, .. } = &*self.tokens.0;
        let iat = clock.now().micros().div_euclid(1_000_000);
        let claims = Claims {
            iss: options.issuer.clone(),
            aud: options.audience.clone(),
            sub: user,
            sid: session,
            tid: tenant.to_owned(),
            iat,
            exp: iat.saturating_add(options.lifetime.as_secs().cast_signed()),
            jti: clock.ulid(),
        };
        jws::write(&self.key.kid, &claims, |it| self.key.pair.sign(it).as_ref().to_vec())
    }
}

impl Tokens {
    /// Tokens whose keys are in a database, the private parts sealed with `secret`. `tenant` is whose
    /// rows the keys are; they sign for every tenant.
    pub fn new(db: Db, clock: Clock, secret: Secret, tenant: &str, options: Options) -> Self {
        let system = Caller::system("access", tenant, DEPLOYMENT);
        let scope = system.permit_in_deployment(ROTATE).expect("the system may do everything");
        let (scope, ring) = (scope.clone(), Mutex::default());
        Self(Arc::new(Inner { db, clock, secret, scope, options, ring }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "tokens", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// How long a token is believed.
    pub fn lifetime(&self) -> Duration {
        self.0.options.lifetime
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    /// What a token says, if it is one of ours and has not ended. Whether its session has is another
    /// question.
    ///
    /// # Errors
    /// When the database refuses; within, why the token is refused.
    pub async fn verify(&self, text: &str) -> Result<Result<Claims, Refused>> {
        let unproven = match jws::Unproven::read(text) {
            Ok(it) => it,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(key) = self.key(&unproven.kid).await? else { return Ok(Err(Refused::Key)) };
        let Options { issuer, audience, .. } = &self.0.options;
        Ok(unproven.prove(key.public()).and_then(|claims| {
            claims.check(issuer, audience, self.0.clock.now())?;
            Ok(claims)
        }))
    }

    /// The key with which to sign now; a new one when there is none, or it has signed long enough.
    pub(crate) async fn signer(&self) -> Result<Signer> {
        let young = |keys: &[Key]| {
            keys.iter().find(|it| self.is_young(it.created_at, it.retired_at)).cloned()
        };
        let mut key = young(&self.keys(REMEMBERED).await?);
        if key.is_none() {
            self.renew(false, &self.0.scope).await?;
            key = young(&self.keys(Duration::ZERO).await?);
        }
        let key = key.ok_or_else(|| Failure::internal("the new key is not there"))?;
        Ok(Signer { key, tokens: self.clone() })
    }

    /// Makes a new key; the one before is believed until its tokens have ended.
    ///
    /// # Errors
    /// `permission_denied`, `step_up_required`; when the database refuses.
    pub async fn rotate(&self, caller: &Caller) -> Result<()> {
        let scope = caller.permit_in_deployment(ROTATE)?;
        if let Proof::Session { id, .. } = caller.proof() {
            // As it is now: the gate may not know yet that the user has shown who it is.
            let (mut conn, now) = (self.0.db.conn().await?, self.0.clock.now());
            let proof = session::proof_in(&mut conn, scope, id, now).await?;
            let proof = proof.ok_or_else(|| Failure::denied(ROTATE))?;
            require_fresh_login(&caller.clone().with_proof(proof, caller.user()), now)?;
        }
        self.renew(true, scope).await
    }

    /// Removes every key, in the transaction in which the secret that sealed them is given up. Tokens that
    /// they have signed are believed no more. Gives how many there were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn remove_keys_in(&self, conn: &mut Conn) -> Result<u64> {
        let removed = store::remove_all(conn, &self.0.scope).await?;
        *self.0.ring.lock() = None;
        Ok(removed)
    }

    /// Signs something else than a token: the name of the key, its public part and the signature. What is
    /// signed must not look like a token.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sign(&self, text: &[u8]) -> Result<(String, Vec<u8>, Vec<u8>)> {
        let Signer { key, .. } = self.signer().await?;
        let signature = key.pair.sign(text).as_ref().to_vec();
        Ok((key.kid.clone(), key.public().to_vec(), signature))
    }

    /// The public keys by their names, also of those that sign no more, until they are forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn public_keys(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let rows = store::all(&mut self.0.db.conn().await?, &self.0.scope).await?;
        let named = |row: &KeyRow| {
            let key = self.open(row)?;
            Ok((key.kid.clone(), key.public().to_vec()))
        };
        rows.iter().map(named).collect()
    }

    /// The public keys (RFC 7517), of which one signs.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn jwks(&self) -> Result<http::Jwks> {
        // Somebody who asks is about to ask for a token.
        self.signer().await?;
        let keys = self.keys(REMEMBERED).await?;
        Ok(http::Jwks::new(keys.iter().map(|it| (it.kid.as_str(), it.public()))))
    }

    fn is_young(&self, created_at: Time, retired_at: Option<Time>) -> bool {
        let age = self.0.clock.now().since(created_at);
        retired_at.is_none() && age < self.0.options.rotate_after
    }

    /// Keys that were retired before it are believed no more: their last tokens have ended, also those of
    /// processes that learnt late of the new key.
    fn horizon(&self) -> Time {
        self.0.clock.now().before(self.0.options.lifetime + jws::SKEW + 2 * REMEMBERED)
    }

    async fn key(&self, kid: &str) -> Result<Option<Key>> {
        let find = |keys: &[Key]| keys.iter().find(|it| it.kid == kid).cloned();
        let found = find(&self.keys(REMEMBERED).await?);
        let found = match found {
            Some(key) => Some(key),
            None => find(&self.keys(LOOKED).await?),
        };
        let horizon = self.horizon();
        Ok(found.filter(|it| it.retired_at.is_none_or(|it| it > horizon)))
    }

    /// The keys as they were `age` ago at most, newest first.
    async fn keys(&self, age: Duration) -> Result<Arc<[Key]>> {
        let now = self.0.clock.now();
        let remembered = self.0.ring.lock().clone();
        if let Some((at, keys)) = remembered
            && now >= at
            && now.since(at) < age
        {
            return Ok(keys);
        }
        let rows = store::all(&mut self.0.db.conn().await?, &self.0.scope).await?;
        let horizon = self.horizon();
        let believed = rows.iter().filter(|it| it.retired_at.is_none_or(|it| it > horizon));
        let keys: Arc<[Key]> = believed.map(|it| self.open(it)).collect::<Result<_>>()?;
        *self.0.ring.lock() = Some((now, Arc::clone(&keys)));
        Ok(keys)
    }

    fn open(&self, row: &KeyRow) -> Result<Key> {
        let kid = row.id.to_string();
        let private = self.0.secret.open(&sealed_as(&kid), &row.private_key)?;
        let pair = pair(&private)?;
        // The public part comes from the private one: whoever writes to the database signs nothing.
        if pair.public_key().as_ref() != row.public_key {
            return Err(Failure::internal("a signing key was changed in the database"));
        }
        let (created_at, retired_at) = (row.created_at, row.retired_at);
        Ok(Key { kid, pair: Arc::new(pair), created_at, retired_at })
    }

    /// Makes a new key, unless another process has just done so. `told` is who does it.
    async fn renew(&self, at_once: bool, told: &Scope) -> Result<()> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|it| Failure::internal(it.to_string()))?;
        let pair = pair(document.as_ref())?;
        let (id, now) = (self.0.clock.ulid(), self.0.clock.now());
        let row = KeyRow {
            id,
            public_key: pair.public_key().as_ref().to_vec(),
            private_key: self.0.secret.seal(&sealed_as(&id.to_string()), document.as_ref())?,
            created_at: now,
            retired_at: None,
        };
        let (it, told) = (self.clone(), told.clone());
        let renew = self.0.db.transaction(move |conn| {
            async move {
                let scope = &it.0.scope;
                conn.exclusive("access:signing-keys").await?;
                let keys = store::all(conn, scope).await?;
                if !at_once && keys.iter().any(|key| it.is_young(key.created_at, key.retired_at)) {
                    return Ok(());
                }
                store::forget(conn, scope, it.horizon()).await?;
                store::retire(conn, scope, now).await?;
                store::insert(conn, scope, row).await?;
                Ok(emit(conn, &told, Event::new(&it.0.clock, "signing_key.created", id)).await?)
            }
            .boxed()
        });
        renew.await?;
        *self.0.ring.lock() = None;
        Ok(())
    }
}

fn pair(document: &[u8]) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8(document).map_err(|it| Failure::internal(it.to_string()))
}

fn sealed_as(kid: &str) -> String {
    format!("signing-key:{kid}")
}
