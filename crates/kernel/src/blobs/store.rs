//! The `blobs` table.

use super::{Chunk, Stored};
use crate::db::{Conn, Json, Result, scoped};
use crate::{Scope, Time, columns};

#[derive(Debug)]
pub(super) struct BlobRow {
    pub(super) hash: String,
    pub(super) size_bytes: u64,
    pub(super) object_key: String,
    pub(super) compressed: bool,
    pub(super) chunks: Json<Vec<Chunk>>,
}

columns!(BlobRow: hash, size_bytes, object_key, compressed, chunks);

/// Adds a reference and gives the key of the object that has the content: another one's when it
/// was stored before.
pub(super) async fn refer(
    conn: &mut Conn,
    scope: &Scope,
    stored: &Stored,
    now: Time,
) -> Result<String> {
    let (key,) = scoped(
        scope,
        "INSERT INTO blobs (tenant_id, service_id, hash, size_bytes, stored_bytes, object_key,
                            compressed, chunks, refs, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)
         ON CONFLICT (tenant_id, service_id, hash)
         DO UPDATE SET refs = blobs.refs + 1, orphaned_at = NULL
         RETURNING object_key",
    )
    .bind(&stored.blob.hash)
    .bind(i64::try_from(stored.blob.size_bytes).unwrap_or(i64::MAX))
    .bind(i64::try_from(stored.stored_bytes).unwrap_or(i64::MAX))
    .bind(&stored.key)
    .bind(stored.compressed)
    .bind(Json(&stored.chunks))
    .bind(now)
    .fetch_one(conn)
    .await?;
    Ok(key)
}

/// Adds content that nobody refers to yet, to be kept until then; gives the key of the object that has
/// it.
pub(super) async fn keep(
    conn: &mut Conn,
    scope: &Scope,
    stored: &Stored,
    now: Time,
    until: Time,
) -> Result<String> {
    let (key,) = scoped(
        scope,
        "INSERT INTO blobs (tenant_id, service_id, hash, size_bytes, stored_bytes, object_key,
                            compressed, chunks, refs, keeps, created_at, orphaned_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 1, $9, $10)
         ON CONFLICT (tenant_id, service_id, hash)
         DO UPDATE SET keeps = blobs.keeps + 1, orphaned_at = CASE WHEN blobs.orphaned_at > excluded.orphaned_at
             THEN blobs.orphaned_at ELSE excluded.orphaned_at END
         RETURNING object_key",
    )
    .bind(&stored.blob.hash)
    .bind(i64::try_from(stored.blob.size_bytes).unwrap_or(i64::MAX))
    .bind(i64::try_from(stored.stored_bytes).unwrap_or(i64::MAX))
    .bind(&stored.key)
    .bind(stored.compressed)
    .bind(Json(&stored.chunks))
    .bind(now)
    .bind(until)
    .fetch_one(conn)
    .await?;
    Ok(key)
}

/// Makes content that was kept one that nobody has referred to since now, unless others keep it.
pub(super) async fn let_go(conn: &mut Conn, scope: &Scope, hash: &str, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE blobs SET keeps = CASE WHEN keeps > 0 THEN keeps - 1 ELSE 0 END,
                orphaned_at = CASE WHEN refs <= 0 AND keeps <= 1 THEN $4 ELSE orphaned_at END
         WHERE tenant_id = $1 AND service_id = $2 AND hash = $3",
    )
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn release(conn: &mut Conn, scope: &Scope, hash: &str, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE blobs SET refs = refs - 1,
                orphaned_at = CASE WHEN refs > 1 OR orphaned_at > $4 THEN orphaned_at ELSE $4 END
         WHERE tenant_id = $1 AND service_id = $2 AND hash = $3",
    )
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, hash: &str) -> Result<Option<BlobRow>> {
    select(conn, scope, hash, "").await
}

/// Finds it if a row refers to it.
pub(super) async fn find_used(
    conn: &mut Conn,
    scope: &Scope,
    hash: &str,
) -> Result<Option<BlobRow>> {
    select(conn, scope, hash, " AND refs > 0").await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    hash: &str,
    condition: &'static str,
) -> Result<Option<BlobRow>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM blobs
             WHERE tenant_id = $1 AND service_id = $2 AND hash = $3{condition}",
            BlobRow::COLUMNS
        ),
    )
    .bind(hash)
    .fetch_optional(conn)
    .await
}

/// Forgets what nobody has referred to since `before`, and gives the objects' keys.
pub(super) async fn take_orphans(
    conn: &mut Conn,
    scope: &Scope,
    before: Time,
) -> Result<Vec<String>> {
    let gone: Vec<(String,)> = scoped(
        scope,
        "DELETE FROM blobs
         WHERE tenant_id = $1 AND service_id = $2 AND refs <= 0 AND orphaned_at < $3
         RETURNING object_key",
    )
    .bind(before)
    .fetch_all(conn)
    .await?;
    Ok(gone.into_iter().map(|it| it.0).collect())
}
