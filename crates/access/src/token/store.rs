//! The table `signing_keys`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid, columns};

/// A key as it is kept.
#[derive(Debug)]
pub(super) struct KeyRow {
    pub(super) id: Ulid,
    pub(super) public_key: Vec<u8>,
    /// Sealed.
    pub(super) private_key: Vec<u8>,
    pub(super) created_at: Time,
    pub(super) retired_at: Option<Time>,
}

columns!(KeyRow: id, public_key, private_key, created_at, retired_at);

/// Every key, newest first.
pub(super) async fn all(conn: &mut Conn, scope: &Scope) -> Result<Vec<KeyRow>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM signing_keys WHERE tenant_id = $1 AND service_id = $2
             ORDER BY created_at DESC, id DESC",
            KeyRow::COLUMNS
        ),
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn insert(conn: &mut Conn, scope: &Scope, row: KeyRow) -> Result<()> {
    let KeyRow { id, public_key, private_key, created_at, retired_at } = row;
    scoped(
        scope,
        "INSERT INTO signing_keys (tenant_id, service_id, id, public_key, private_key, created_at,
             retired_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(public_key)
    .bind(private_key)
    .bind(created_at)
    .bind(retired_at)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes every key. Gives how many there were.
pub(super) async fn remove_all(conn: &mut Conn, scope: &Scope) -> Result<u64> {
    scoped(scope, "DELETE FROM signing_keys WHERE tenant_id = $1 AND service_id = $2")
        .execute(conn)
        .await
}

/// Retires every key that signs.
pub(super) async fn retire(conn: &mut Conn, scope: &Scope, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE signing_keys SET retired_at = $3
         WHERE tenant_id = $1 AND service_id = $2 AND retired_at IS NULL",
    )
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Removes the keys that were retired before a time.
pub(super) async fn forget(conn: &mut Conn, scope: &Scope, before: Time) -> Result<()> {
    scoped(
        scope,
        "DELETE FROM signing_keys
         WHERE tenant_id = $1 AND service_id = $2 AND retired_at < $3",
    )
    .bind(before)
    .execute(conn)
    .await
    .map(drop)
}
