//! Whose a key is that somebody presents. Until it is found nobody knows the tenant, so this asks for
//! the keys of all.

use modelyard_kernel::columns;
use modelyard_kernel::db::{Conn, Json, Result, query};
use modelyard_kernel::{Time, Ulid};

use super::model::KeyId;

/// A key that was found by what is stored of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) tenant_id: String,
    pub(super) id: KeyId,
    pub(super) scopes: Json<Vec<String>>,
    pub(super) addresses: Json<Vec<String>>,
    pub(super) per_minute: Option<u32>,
    pub(super) expires_at: Option<Time>,
    pub(super) revoked_at: Option<Time>,
    pub(super) last_used_at: Option<Time>,
    pub(super) maker_id: Option<Ulid>,
}

columns!(Found: tenant_id, id, scopes, addresses, per_minute, expires_at, revoked_at, last_used_at,
    maker_id);

/// The key with this hash. A hash is compared by an index, so that the time it takes tells at most
/// something about hashes, of which nobody finds the key.
pub(super) async fn find(conn: &mut Conn, hash: &[u8; 32]) -> Result<Option<Found>> {
    query(format!("SELECT {} FROM api_keys WHERE hash = $1", Found::COLUMNS))
        .bind(hash.to_vec())
        .fetch_optional(conn)
        .await
}
