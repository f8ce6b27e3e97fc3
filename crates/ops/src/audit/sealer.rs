//! Takes events into the chains, signs them and lets old entries go: one loop in each process. What two of
//! them do at once, one does after the other.

use std::collections::HashMap;
use std::time::Duration;

use modelyard_kernel::{Result, Time, event};
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

pub(super) async fn run(audit: Audit, stopping: CancellationToken) {
    let mut tenants = HashMap::new();
    loop {
        if let Err(failure) = look(&audit, &mut tenants).await {
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
    for tenant in event::tenants(&mut db.conn().await?).await? {
        let scope = Audit::system(&tenant)?;
        audit.seal(&scope).await?;
        // At first as if that were long ago: what an earlier process has not signed is signed at once.
        let long_ago = Time::from_micros(0);
        tenants.entry(tenant).or_insert(Cared { signed: long_ago, retained: long_ago });
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
