//! The table `login_failures`.

use modelyard_kernel::db::{Conn, Dialect, Result, scoped};
use modelyard_kernel::{Scope, Time};

/// How often it failed, and when last.
pub(super) type Counted = (i64, Time);

/// What is counted, held until the transaction ends; what was before `forgotten` counts no more.
pub(super) async fn lock(
    conn: &mut Conn,
    scope: &Scope,
    account: &str,
    address: &str,
    (now, forgotten): (Time, Time),
) -> Result<Counted> {
    scoped(
        scope,
        "INSERT INTO login_failures (tenant_id, service_id, account, address, failures, last_at)
         VALUES ($1, $2, $3, $4, 0, $5)
         ON CONFLICT (tenant_id, service_id, account, address) DO UPDATE SET
             failures = CASE WHEN login_failures.last_at < $6 THEN 0
                 ELSE login_failures.failures END
         RETURNING failures, last_at",
    )
    .bind(account)
    .bind(address)
    .bind(now)
    .bind(forgotten)
    .fetch_one(conn)
    .await
}

/// Counts one more.
pub(super) async fn count(
    conn: &mut Conn,
    scope: &Scope,
    account: &str,
    address: &str,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE login_failures SET failures = failures + 1, last_at = $5
         WHERE tenant_id = $1 AND service_id = $2 AND account = $3 AND address = $4",
    )
    .bind(account)
    .bind(address)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Counts one less: that of `counted_at`, before which the last was at `before`.
pub(super) async fn take_back(
    conn: &mut Conn,
    scope: &Scope,
    account: &str,
    address: &str,
    (counted_at, before): (Time, Time),
) -> Result<()> {
    scoped(
        scope,
        "UPDATE login_failures SET failures = failures - 1,
             last_at = CASE WHEN last_at = $5 THEN $6 ELSE last_at END
         WHERE tenant_id = $1 AND service_id = $2 AND account = $3 AND address = $4
             AND failures > 0",
    )
    .bind(account)
    .bind(address)
    .bind(counted_at)
    .bind(before)
    .execute(conn)
    .await?;
    scoped(
        scope,
        "DELETE FROM login_failures WHERE tenant_id = $1 AND service_id = $2 AND account = $3
             AND address = $4 AND failures = 0",
    )
    .bind(account)
    .bind(address)
    .execute(conn)
    .await
    .map(drop)
}

/// Forgets the failures of an account at an address.
pub(super) async fn forget_at(
    conn: &mut Conn,
    scope: &Scope,
    account: &str,
    address: &str,
) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM login_failures WHERE tenant_id = $1 AND service_id = $2 AND account = $3
             AND address = $4",
    )
    .bind(account)
    .bind(address)
    .execute(conn)
    .await
    .map(drop)
}

/// Forgets the failures of an account, wherever they were.
pub(super) async fn forget(conn: &mut Conn, scope: &Scope, account: &str) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM login_failures WHERE tenant_id = $1 AND service_id = $2 AND account = $3",
    )
    .bind(account)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes what counts no more, `most` of it.
pub(super) async fn sweep(conn: &mut Conn, scope: &Scope, before: Time, most: i64) -> Result<u64> {
    // Without waiting for a row that somebody holds, who may wait for another of these.
    let skip = match conn.dialect() {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
    };
    scoped(
        scope,
        format!(
            "WITH due AS MATERIALIZED (
                 SELECT account, address FROM login_failures
                 WHERE tenant_id = $1 AND service_id = $2 AND last_at < $3
                 ORDER BY last_at LIMIT $4{skip})
             DELETE FROM login_failures WHERE tenant_id = $1 AND service_id = $2
                 AND (account, address) IN (SELECT account, address FROM due)"
        ),
    )
    .bind(before)
    .bind(most)
    .execute(conn)
    .await
}
