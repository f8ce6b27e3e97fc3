//! Removes what has expired.

use std::sync::Arc;
use std::time::Duration;

use modelyard_kernel::{Result, Time};

use super::claims::{self, Expiry};
use super::engine::Machine;

/// How often what has expired is removed.
const EXPIRE: Duration = Duration::from_secs(300);
/// How long names of requests are remembered.
const KEYS: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what has expired, now and then.
pub(super) async fn expire(machine: Arc<Machine>) {
    let stopping = machine.background.stopping().clone();
    let mut since = machine.clock.now().before(KEYS);
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRE) => {}
            () = stopping.cancelled() => return,
        }
        let began = machine.clock.now();
        match expire_now(&machine, since).await {
            Ok(jobs) => {
                // What others write down this very moment has an earlier time.
                since = began.before(EXPIRE);
                if jobs > 0 {
                    tracing::info!(jobs, "records of jobs have expired");
                }
            }
            Err(failure) => tracing::error!(%failure, "what has expired is not removed"),
        }
    }
}

/// `since` is when this was last done.
pub(super) async fn expire_now(machine: &Machine, since: Time) -> Result<u64> {
    let now = machine.clock.now();
    let retention = machine.options.retention;
    let ended = if retention.is_zero() { Time::from_micros(0) } else { now.before(retention) };
    let mut conn = machine.db.conn().await?;
    let expiry = Expiry { ended, keys: now.before(KEYS), since, now };
    Ok(claims::expire(&mut conn, expiry).await?)
}
