//! Takes events into the chains, signs them and lets old entries go: one loop in each process. What two of
//! them do at once, one does after the other.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use modelyard_kernel::db::query;
use modelyard_kernel::{Db, Result, Time, event};
use tokio_util::sync::CancellationToken;

use super::Audit;

/// How often it is looked whether there is something.
const LOOK: Duration = Duration::from_secs(2);
/// How long a chain may grow without a signature.
const SIGN: Duration = Duration::from_secs(300);
/// How often old entries are looked for.
const RETAIN: Duration = Duration::from_secs(3600);

/// When the chain of a tenant was last looked after.
#[derive(Clone, Copy, Debug)]
struct Cared {
    signed: Time,
    retained: Time,
}

impl Cared {
    /// As if that were long ago.
    fn never() -> Self {
        Self { signed: Time::from_micros(0), retained: Time::from_micros(0) }
    }
}

/// The tenants who have a chain, or of whom something was told.
pub(super) async fn tenants(db: &Db) -> Result<BTreeSet<String>> {
    let mut conn = db.conn().await?;
    let told = event::tenants(&mut conn).await?;
    let signed: Vec<(String,)> =
        query("SELECT DISTINCT tenant_id FROM audit_heads").fetch_all(&mut conn).await?;
    Ok(signed.into_iter().map(|it| it.0).chain(told).collect())
}

pub(super) async fn run(audit: Audit, stopping: CancellationToken) {
    let mut cared = HashMap::new();
    let mut known = false;
    loop {
        if !known {
            // Whose chain an earlier process has left unsigned, or who has old entries and tells nothing.
            if let Ok(tenants) = tenants(&audit.0.db).await {
                cared.extend(tenants.into_iter().map(|it| (it, Cared::never())));
                known = true;
            }
        }
        if let Err(failure) = look(&audit, &mut cared).await {
            tracing::error!(%failure, "the audit does not go on; what is told waits");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(audit: &Audit, tenants: &mut HashMap<String, Cared>) -> Result<()> {
    let (clock, db) = (&audit.0.clock, &audit.0.db);
    // Not within `for`, which would keep the connection to its end.
    let told = event::tenants(&mut db.conn().await?).await?;
    for tenant in told {
        let scope = Audit::system(&tenant)?;
        audit.seal(&scope).await?;
        tenants.entry(tenant).or_insert(Cared::never());
    }
    for (tenant, cared) in tenants.iter_mut() {
        let (scope, now) = (Audit::system(tenant)?, clock.now());
        if now.since(cared.signed) >= SIGN {
            audit.sign(&scope).await?;
            cared.signed = now;
        }
        if now.since(cared.retained) >= RETAIN {
            audit.retain(&scope).await?;
            cared.retained = now;
        }
    }
    Ok(())
}
