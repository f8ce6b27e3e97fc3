//! The table `api_keys`.

use ipnet::IpNet;
use modelyard_kernel::db::{Conn, Json, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::{Key, KeyId};
use super::presented::Found;

/// A row to be written.
#[derive(Debug)]
pub(super) struct KeyRow {
    pub(super) id: KeyId,
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) hash: [u8; 32],
    pub(super) scopes: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) per_minute: Option<i64>,
    pub(super) created_by: String,
    pub(super) maker_id: Option<Ulid>,
    pub(super) expires_at: Option<Time>,
    pub(super) now: Time,
}

/// The settings of a key.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) per_minute: Option<i64>,
    pub(super) expires_at: Option<Time>,
}

/// Networks as they are stored.
pub(super) fn written(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

pub(super) async fn insert(conn: &mut Conn, scope: &Scope, row: KeyRow) -> Result<Key> {
    let KeyRow {
        id,
        name,
        prefix,
        hash,
        scopes,
        addresses,
        per_minute,
        created_by,
        maker_id,
        expires_at,
        now,
    } = row;
    scoped(
        scope,
        format!(
            "INSERT INTO api_keys (tenant_id, service_id, id, name, prefix, hash, scopes, addresses,
                 per_minute, created_by, maker_id, expires_at, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $13) RETURNING {}",
            Key::COLUMNS
        ),
    )
    .bind(id)
    .bind(name)
    .bind(prefix)
    .bind(hash.to_vec())
    .bind(Json(scopes))
    .bind(Json(addresses))
    .bind(per_minute)
    .bind(created_by)
    .bind(maker_id)
    .bind(expires_at)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: KeyId) -> Result<Option<Key>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: KeyId) -> Result<Option<Key>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(conn: &mut Conn, scope: &Scope, id: KeyId, suffix: &str) -> Result<Option<Key>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM api_keys WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Key::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Whose a key is, as [`super::presented::find`] finds it.
pub(super) async fn found(conn: &mut Conn, scope: &Scope, id: KeyId) -> Result<Option<Found>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM api_keys WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
            Found::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// The keys of a maker that nobody has revoked.
pub(super) async fn made_by(conn: &mut Conn, scope: &Scope, maker: Ulid) -> Result<Vec<Key>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM api_keys WHERE tenant_id = $1 AND service_id = $2 AND maker_id = $3
                 AND revoked_at IS NULL ORDER BY id",
            Key::COLUMNS
        ),
    )
    .bind(maker)
    .fetch_all(conn)
    .await
}

/// Whether one of some keys has not ended that may all that its roles say, since no user has made it.
pub(super) async fn any_of_its_own(
    conn: &mut Conn,
    scope: &Scope,
    ids: &[Ulid],
    now: Time,
) -> Result<bool> {
    let places: Vec<String> = (4..ids.len() + 4).map(|it| format!("${it}")).collect();
    let found: Option<(KeyId,)> = scoped(
        scope,
        format!(
            "SELECT id FROM api_keys WHERE tenant_id = $1 AND service_id = $2
                 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
                 AND maker_id IS NULL
                 AND id IN ({}) LIMIT 1",
            places.join(", ")
        ),
    )
    .bind(now)
    .bind_all(ids.iter().map(|it| (*it).into()))
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

pub(super) async fn update(
    conn: &mut Conn,
    scope: &Scope,
    id: KeyId,
    settings: Settings,
    now: Time,
) -> Result<Key> {
    let Settings { name, scopes, addresses, per_minute, expires_at } = settings;
    scoped(
        scope,
        format!(
            "UPDATE api_keys SET name = $4, scopes = $5, addresses = $6, per_minute = $7,
                 expires_at = $8, revision = revision + 1, updated_at = $9
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3 RETURNING {}",
            Key::COLUMNS
        ),
    )
    .bind(id)
    .bind(name)
    .bind(Json(scopes))
    .bind(Json(addresses))
    .bind(per_minute)
    .bind(expires_at)
    .bind(now)
    .fetch_one(conn)
    .await
}

/// That another key has taken its place, and until when it goes on.
pub(super) async fn rotated(
    conn: &mut Conn,
    scope: &Scope,
    id: KeyId,
    end: Time,
    now: Time,
) -> Result<Key> {
    scoped(
        scope,
        format!(
            "UPDATE api_keys SET expires_at = $4, rotated_at = $5, revision = revision + 1,
                 updated_at = $5
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3 RETURNING {}",
            Key::COLUMNS
        ),
    )
    .bind(id)
    .bind(end)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn revoke(conn: &mut Conn, scope: &Scope, id: KeyId, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE api_keys SET revoked_at = $4, revision = revision + 1, updated_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Writes down that a key was used, unless that was done since `unless_since`.
pub(super) async fn used(
    conn: &mut Conn,
    scope: &Scope,
    id: KeyId,
    at: Time,
    unless_since: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE api_keys SET last_used_at = $4
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             AND (last_used_at IS NULL OR last_used_at <= $5)",
    )
    .bind(id)
    .bind(at)
    .bind(unless_since)
    .execute(conn)
    .await
    .map(drop)
}
