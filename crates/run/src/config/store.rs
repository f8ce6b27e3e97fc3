//! The `configs` table, and which artifacts are linked to them.

use modelyard_kernel::db::{Conn, Json, Result, scoped};
use modelyard_kernel::{Scope, Time};
use serde_json::value::RawValue;

use super::model::{Config, ConfigId};
use crate::artifact::ArtifactId;

/// A row to be written.
#[derive(Debug)]
pub(super) struct ConfigRow {
    pub(super) id: ConfigId,
    pub(super) name: String,
    pub(super) tags: Json<Vec<String>>,
    pub(super) data: Json<Box<RawValue>>,
    pub(super) now: Time,
}

/// `None` when the id is taken.
pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    row: ConfigRow,
) -> Result<Option<Config>> {
    let ConfigRow { id, name, tags, data, now } = row;
    scoped(scope, format!(
        "INSERT INTO configs (tenant_id, service_id, id, name, tags, data, revision, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)
         ON CONFLICT (tenant_id, service_id, id) DO NOTHING
         RETURNING {}",
        Config::COLUMNS
    ))
    .bind(id)
    .bind(name)
    .bind(tags)
    .bind(data)
    .bind(now)
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(conn: &mut Conn, scope: &Scope, row: ConfigRow) -> Result<Config> {
    let ConfigRow { id, name, tags, data, now } = row;
    scoped(scope, format!(
        "UPDATE configs SET name = $4, tags = $5, data = $6, revision = revision + 1, updated_at = $7
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3
         RETURNING {}",
        Config::COLUMNS
    ))
    .bind(id)
    .bind(name)
    .bind(tags)
    .bind(data)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: ConfigId) -> Result<Option<Config>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: ConfigId) -> Result<Option<Config>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    id: ConfigId,
    suffix: &str,
) -> Result<Option<Config>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM configs WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Config::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: ConfigId) -> Result<()> {
    scoped(scope, "DELETE FROM configs WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

/// The roots that are linked to a config, oldest first.
pub(super) async fn linked(
    conn: &mut Conn,
    scope: &Scope,
    id: ConfigId,
) -> Result<Vec<ArtifactId>> {
    let found: Vec<(ArtifactId,)> = scoped(
        scope,
        "SELECT artifact_id FROM config_artifacts
         WHERE tenant_id = $1 AND service_id = $2 AND config_id = $3 ORDER BY artifact_id",
    )
    .bind(id)
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|it| it.0).collect())
}

/// The config that a root is linked to.
pub(super) async fn find_linked(
    conn: &mut Conn,
    scope: &Scope,
    root: ArtifactId,
) -> Result<Option<Config>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM configs WHERE tenant_id = $1 AND service_id = $2 AND id = (
             SELECT config_id FROM config_artifacts
             WHERE tenant_id = $1 AND service_id = $2 AND artifact_id = $3)",
            Config::COLUMNS
        ),
    )
    .bind(root)
    .fetch_optional(conn)
    .await
}

pub(super) async fn link(
    conn: &mut Conn,
    scope: &Scope,
    id: ConfigId,
    artifact: ArtifactId,
) -> Result<()> {
    scoped(
        scope,
        "INSERT INTO config_artifacts (tenant_id, service_id, config_id, artifact_id)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(id)
    .bind(artifact)
    .execute(conn)
    .await
    .map(drop)
}

/// False when there was no such link.
pub(super) async fn unlink(
    conn: &mut Conn,
    scope: &Scope,
    id: ConfigId,
    artifact: ArtifactId,
) -> Result<bool> {
    let gone = scoped(
        scope,
        "DELETE FROM config_artifacts
         WHERE tenant_id = $1 AND service_id = $2 AND config_id = $3 AND artifact_id = $4",
    )
    .bind(id)
    .bind(artifact)
    .execute(conn)
    .await?;
    Ok(gone > 0)
}
