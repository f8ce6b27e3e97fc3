//! The audit: who did what to what, when, from where, and what came of it.
//!
//! Operations tell [events](modelyard_kernel::event) in the transaction of what they change, so that there is no
//! change without its event and no event without its change. A sealer takes the events of each tenant into
//! a chain: entry after entry, each with the hash of itself and of the one before, and now and then the
//! last hash is signed. Nobody changes an entry, removes one or puts one in between without that being found by
//! [`Audit::verify`]; but who writes to the database may cut off what was not signed yet.
//!
//! What was refused, and what administrators look at, is told by the edge with [`Recorder`].

pub mod export;
pub mod http;
pub mod model;
mod recorder;
mod sealer;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::{
    Background, Caller, Clock, DEPLOYMENT, Db, Failure, Part, Permission, Result, Scope, Time, db,
    event, failpoint,
};

use model::{BATCH, HEAD_EVERY, Keys, Kind, Verifier, signed};
pub use model::{Entry, Mark, Sound, Wrong};
pub use recorder::{Recorder, Refusal};

/// May see the audit.
pub const READ: Permission = Permission("audit:read");

/// Batches that somebody who reads waits for: what is told meanwhile by others need not be in it.
const BATCHES: usize = 64;
/// Entries that are looked at or removed at a time.
pub const PAGE: i64 = 1000;

/// Signs for the deployment.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    /// Signs with the key of the moment.
    async fn sign(&self, text: &[u8]) -> Result<Signature>;

    /// The public keys that sign, or did until a while ago.
    async fn keys(&self) -> Result<Keys>;
}

/// A signature and whose it is.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The name of the key.
    pub kid: String,
    /// Its public part.
    pub public_key: Vec<u8>,
    /// Ed25519.
    pub signature: Vec<u8>,
}

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Entries that are older are removed; none unless given.
    pub keep: Option<Duration>,
    /// Whether it is written down what administrators look at.
    pub reads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: None, reads: true }
    }
}

/// The audit of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    signer: Arc<dyn Signer>,
    options: Options,
}

impl Audit {
    /// That of a database, signed by `signer`.
    pub fn new(db: Db, clock: Clock, signer: Arc<dyn Signer>, options: Options) -> Self {
        Self(Arc::new(Inner { db, clock, signer, options }))
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "audit", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Takes what is told into the chains, until the process stops.
    pub fn start(&self, background: &Background) {
        background.spawn(sealer::run(self.clone(), background.stopping().clone()));
    }

    /// Entries, after everything that was told before has become one.
    ///
    /// # Errors
    /// `permission_denied`; when the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Entry>> {
        let scope = caller.permit_in_deployment(READ)?;
        self.seal(scope).await?;
        Ok(query.fetch(&mut self.0.db.conn().await?, scope, Entry::COLUMNS).await?)
    }

    /// One entry.
    ///
    /// # Errors
    /// `entry_missing`.
    pub async fn get(&self, caller: &Caller, seq: i64) -> Result<Entry> {
        let scope = caller.permit_in_deployment(READ)?;
        self.seal(scope).await?;
        let found = store::find(&mut self.0.db.conn().await?, scope, seq).await?;
        found.ok_or_else(|| {
            Failure::missing("entry_missing", format!("there is no entry {seq} in the audit"))
        })
    }

    /// Whether the whole chain is as it was written.
    ///
    /// # Errors
    /// `permission_denied`; when the database refuses.
    pub async fn verify(&self, caller: &Caller) -> Result<Result<Sound, Wrong>> {
        let scope = caller.permit_in_deployment(READ)?;
        self.seal(scope).await?;
        let keys = self.0.signer.keys().await?;
        let anchor = store::anchor(&mut self.0.db.conn().await?, scope).await?;
        let mut verifier = match Verifier::new(scope.tenant(), keys, anchor.as_ref()) {
            Ok(it) => it,
            Err(wrong) => return Ok(Err(wrong)),
        };
        // From the very first, so that what was put before the beginning is found.
        let mut after = i64::MIN;
        loop {
            let mut conn = self.0.db.conn().await?;
            let entries = match store::page(&mut conn, scope, after, PAGE).await {
                Ok(entries) => entries,
                Err(db::Error::Column(_)) => {
                    let (seq, why) = (verifier.last() + 1, "the entry cannot be read");
                    return Ok(Err(Wrong { seq, why }));
                }
                Err(error) => return Err(error.into()),
            };
            let is_last = entries.is_empty();
            let until = entries.last().map_or(i64::MAX, |it| it.seq);
            let heads = store::heads(&mut conn, scope, after, until).await?;
            drop(conn);
            after = until;
            let looked = modelyard_kernel::background::compute(move || {
                let looked = look(&mut verifier, &entries, &heads);
                looked.map(|()| verifier)
            });
            verifier = match looked.await? {
                Ok(it) => it,
                Err(wrong) => return Ok(Err(wrong)),
            };
            if is_last {
                return Ok(verifier.finish());
            }
        }
    }

    /// Takes everything that was told of a tenant into its chain.
    async fn seal(&self, scope: &Scope) -> Result<()> {
        for _ in 0..BATCHES {
            if self.seal_some(scope).await? < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Takes a batch of it. Gives how many were there.
    async fn seal_some(&self, scope: &Scope) -> Result<i64> {
        let (seq, signed_to) = self.unsigned(scope).await?;
        if seq - signed_to >= HEAD_EVERY {
            self.sign(scope).await?;
        }
        let scope = scope.clone();
        let seal = self.0.db.transaction(move |conn| {
            async move {
                let tenant = scope.tenant();
                conn.exclusive(&format!("audit:{tenant}")).await?;
                let told = event::take(conn, tenant, BATCH).await?;
                let taken = told.len();
                if taken > 0 {
                    failpoint::reach("audit.taken");
                    let (mut seq, mut hash) = store::tail(conn, &scope).await?;
                    let mut entries = Vec::with_capacity(taken);
                    for told in told {
                        seq += 1;
                        let entry = Entry::new(tenant, told, seq, &hash);
                        hash = entry.hashed(tenant, &hash);
                        entries.push(entry);
                    }
                    store::insert(conn, &scope, entries).await?;
                    failpoint::reach("audit.sealing");
                }
                Ok(i64::try_from(taken).unwrap_or(i64::MAX))
            }
            .boxed()
        });
        let taken = seal.await?;
        if taken > 0 {
            failpoint::reach("audit.sealed");
        }
        Ok(taken)
    }

    /// The last entry, and until where the chain is signed.
    async fn unsigned(&self, scope: &Scope) -> Result<(i64, i64)> {
        let mut conn = self.0.db.conn().await?;
        let (seq, _) = store::tail(&mut conn, scope).await?;
        let signed = match store::head(&mut conn, scope).await? {
            Some(head) => Some(head),
            None => store::anchor(&mut conn, scope).await?,
        };
        Ok((seq, signed.map_or(0, |it| it.seq)))
    }

    /// Signs the last entry, unless that was done. What is signed is a line in the log too: whoever keeps that
    /// elsewhere also finds a chain that was cut off.
    async fn sign(&self, scope: &Scope) -> Result<()> {
        let (seq, signed_to) = self.unsigned(scope).await?;
        if seq <= signed_to {
            return Ok(());
        }
        let mut conn = self.0.db.conn().await?;
        let (seq, hash) = store::tail(&mut conn, scope).await?;
        drop(conn);
        let mark = self.mark(Kind::Head, scope, seq, hash.to_vec()).await?;
        let (tenant, kid) = (scope.tenant(), mark.kid.clone());
        let shown = model::hex(&mark.hash);
        store::insert_head(&mut self.0.db.conn().await?, scope, mark).await?;
        tracing::info!(tenant, seq, hash = shown, kid, "the audit is signed");
        self.sign_anchor(scope, &kid).await
    }

    /// Signs the beginning of a chain anew when there is another key, while the earlier one is known.
    async fn sign_anchor(&self, scope: &Scope, kid: &str) -> Result<()> {
        let anchor = store::anchor(&mut self.0.db.conn().await?, scope).await?;
        let Some(anchor) = anchor.filter(|it| it.kid != kid) else { return Ok(()) };
        let keys = self.0.signer.keys().await?;
        if Verifier::new(scope.tenant(), keys, Some(&anchor)).is_err() {
            return Ok(());
        }
        let mark = self.mark(Kind::Anchor, scope, anchor.seq, anchor.hash).await?;
        Ok(store::set_anchor(&mut self.0.db.conn().await?, scope, mark).await?)
    }

    async fn mark(&self, kind: Kind, scope: &Scope, seq: i64, hash: Vec<u8>) -> Result<Mark> {
        let at = self.0.clock.now();
        let text = signed(kind, scope.tenant(), seq, &hash, at);
        let Signature { kid, public_key, signature } = self.0.signer.sign(&text).await?;
        Ok(Mark { seq, hash, at, kid, public_key, signature })
    }

    /// Removes entries that nobody has to keep any more. What is left is vouched for from a signed beginning on.
    async fn retain(&self, scope: &Scope) -> Result<()> {
        let Some(keep) = self.0.options.keep else { return Ok(()) };
        let horizon = self.0.clock.now().before(keep);
        loop {
            let mut conn = self.0.db.conn().await?;
            let Some(first) = store::first(&mut conn, scope).await? else { return Ok(()) };
            let (last, _) = store::tail(&mut conn, scope).await?;
            // The last entry stays, so that the chain is seen to go on.
            let kept = store::first_since(&mut conn, scope, horizon).await?.unwrap_or(last);
            let until = (kept - 1).min(first + PAGE - 1).min(last - 1);
            if until < first {
                return Ok(());
            }
            let entry = store::find(&mut conn, scope, until).await?;
            drop(conn);
            let Some(entry) = entry else {
                let detail = format!("entry {until} of the audit is missing: nothing is removed");
                return Err(Failure::internal(detail));
            };
            let mark = self.mark(Kind::Anchor, scope, until, entry.hash).await?;
            let (tenant, scope) = (scope.tenant().to_owned(), scope.clone());
            let remove = self.0.db.transaction(move |conn| {
                async move {
                    conn.exclusive(&format!("audit:{}", scope.tenant())).await?;
                    let before = store::anchor(conn, &scope).await?;
                    if before.is_some_and(|it| it.seq >= mark.seq) {
                        return Ok(());
                    }
                    store::set_anchor(conn, &scope, mark).await?;
                    Ok(store::remove(conn, &scope, until).await?)
                }
                .boxed()
            });
            remove.await?;
            tracing::info!(
                tenant,
                first,
                until,
                "entries of the audit have gone, as the settings say"
            );
        }
    }

    /// The scope of the audit of a tenant, for the service itself.
    fn system(tenant: &str) -> Result<Scope> {
        Caller::system("audit", tenant, DEPLOYMENT).permit_in_deployment(READ).cloned()
    }

    /// Takes everything that was told into the chains, and signs them; for when the process ends.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn finish(&self) -> Result<()> {
        for tenant in sealer::tenants(&self.0.db).await? {
            let scope = Self::system(&tenant)?;
            self.seal(&scope).await?;
            self.sign(&scope).await?;
        }
        Ok(())
    }

    /// The first entry that is not older than a time.
    async fn since(&self, scope: &Scope, at: Time) -> Result<Option<i64>> {
        Ok(store::first_since(&mut self.0.db.conn().await?, scope, at).await?)
    }
}

/// Looks at entries and heads, each head after its entry.
fn look(verifier: &mut Verifier, entries: &[Entry], heads: &[Mark]) -> Result<(), Wrong> {
    let mut heads = heads.iter().peekable();
    for entry in entries {
        verifier.entry(entry)?;
        while let Some(head) = heads.next_if(|it| it.seq <= entry.seq) {
            verifier.head(head)?;
        }
    }
    heads.try_for_each(|head| verifier.head(head))
}
