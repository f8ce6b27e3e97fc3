//! The tables `factors` and `recovery_codes`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::Factor;

pub(super) async fn find(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<Option<Factor>> {
    select(conn, scope, user, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<Option<Factor>> {
    let suffix = conn.for_update();
    select(conn, scope, user, suffix).await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    suffix: &str,
) -> Result<Option<Factor>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM factors
             WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3{suffix}",
            Factor::COLUMNS
        ),
    )
    .bind(user)
    .fetch_optional(conn)
    .await
}

/// Writes a secret that is not in use yet. False when there is one that is.
pub(super) async fn begin(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    secret: Vec<u8>,
    now: Time,
) -> Result<bool> {
    let written = scoped(
        scope,
        "INSERT INTO factors (tenant_id, service_id, user_id, secret, last_step, created_at)
         VALUES ($1, $2, $3, $4, 0, $5)
         ON CONFLICT (tenant_id, service_id, user_id) DO UPDATE
         SET secret = excluded.secret, last_step = 0, created_at = excluded.created_at
         WHERE factors.confirmed_at IS NULL",
    )
    .bind(user)
    .bind(secret)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(written == 1)
}

/// From now on it is asked for; the code of `step` is used.
pub(super) async fn confirm(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    step: i64,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE factors SET confirmed_at = $5, last_step = $4
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND confirmed_at IS NULL",
    )
    .bind(user)
    .bind(step)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Uses the code of a step. False when it, or that of a later one, was used before.
pub(super) async fn use_step(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    step: i64,
) -> Result<bool> {
    let used = scoped(
        scope,
        "UPDATE factors SET last_step = $4
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3
             AND last_step < $4 AND confirmed_at IS NOT NULL",
    )
    .bind(user)
    .bind(step)
    .execute(conn)
    .await?;
    Ok(used == 1)
}

/// Removes a factor and its recovery codes. False when there was none.
pub(super) async fn delete(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<bool> {
    delete_codes(conn, scope, user).await?;
    let gone = scoped(
        scope,
        "DELETE FROM factors WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3",
    )
    .bind(user)
    .execute(conn)
    .await?;
    Ok(gone > 0)
}

/// Removes every factor and every recovery code. Gives how many factors there were.
pub(super) async fn delete_all(conn: &mut Conn, scope: &Scope) -> Result<u64> {
    scoped(scope, "DELETE FROM recovery_codes WHERE tenant_id = $1 AND service_id = $2")
        .execute(conn)
        .await?;
    scoped(scope, "DELETE FROM factors WHERE tenant_id = $1 AND service_id = $2")
        .execute(conn)
        .await
}

async fn delete_codes(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM recovery_codes WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3",
    )
    .bind(user)
    .execute(conn)
    .await
    .map(drop)
}

/// Replaces the recovery codes.
pub(super) async fn put_codes(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    hashes: Vec<Vec<u8>>,
) -> Result<()> {
    delete_codes(conn, scope, user).await?;
    for hash in hashes {
        scoped(
            scope,
            "INSERT INTO recovery_codes (tenant_id, service_id, user_id, hash)
             VALUES ($1, $2, $3, $4)",
        )
        .bind(user)
        .bind(hash)
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Uses a recovery code. False when there is no such code, or it was used before.
pub(super) async fn use_code(
    conn: &mut Conn,
    scope: &Scope,
    user: Ulid,
    hash: Vec<u8>,
    now: Time,
) -> Result<bool> {
    let used = scoped(
        scope,
        "UPDATE recovery_codes SET used_at = $5
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND hash = $4
             AND used_at IS NULL",
    )
    .bind(user)
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(used == 1)
}

/// How many recovery codes were not used yet.
pub(super) async fn codes_left(conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<i64> {
    let (left,) = scoped(
        scope,
        "SELECT COUNT(*) FROM recovery_codes
         WHERE tenant_id = $1 AND service_id = $2 AND user_id = $3 AND used_at IS NULL",
    )
    .bind(user)
    .fetch_one(conn)
    .await?;
    Ok(left)
}
