//! The `artifacts` table.

use modelyard_kernel::db::{Conn, Json, Result, Value, scoped};
use modelyard_kernel::{Scope, Time};
use serde_json::value::RawValue;

use super::model::{Artifact, ArtifactId, ContentForm};

/// Where an artifact's content is.
#[derive(Debug, Default)]
pub(super) struct ContentRow {
    pub(super) at: Option<i64>,
    pub(super) form: Option<ContentForm>,
    pub(super) inline: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) bytes: Option<i64>,
}

/// A row to be written.
#[derive(Debug)]
pub(super) struct ArtifactRow {
    pub(super) id: ArtifactId,
    pub(super) parent_id: Option<ArtifactId>,
    pub(super) level: i64,
    pub(super) tags: Json<Vec<String>>,
    pub(super) data: Json<Box<RawValue>>,
    pub(super) content: ContentRow,
    pub(super) now: Time,
}

/// `None` when the id is taken.
pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    row: ArtifactRow,
) -> Result<Option<Artifact>> {
    scoped(
        scope,
        format!(
        "INSERT INTO artifacts (tenant_id, service_id, id, parent_id, level, tags, data, revision,
             created_at, updated_at, content_at, content_form, content, content_hash, content_bytes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (tenant_id, service_id, id) DO NOTHING
         RETURNING {}",
        Artifact::COLUMNS
    ),
    )
    .bind(row.id)
    .bind(row.parent_id)
    .bind(row.level)
    .bind(row.tags)
    .bind(row.data)
    .bind(row.now)
    .bind_all(content(row.content))
    .fetch_optional(conn)
    .await
}

pub(super) async fn update(conn: &mut Conn, scope: &Scope, row: ArtifactRow) -> Result<Artifact> {
    scoped(
        scope,
        format!(
            "UPDATE artifacts SET parent_id = $4, level = $5, tags = $6, data = $7,
             revision = revision + 1, updated_at = $8, content_at = $9, content_form = $10,
             content = $11, content_hash = $12, content_bytes = $13
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3
         RETURNING {}",
            Artifact::COLUMNS
        ),
    )
    .bind(row.id)
    .bind(row.parent_id)
    .bind(row.level)
    .bind(row.tags)
    .bind(row.data)
    .bind(row.now)
    .bind_all(content(row.content))
    .fetch_one(conn)
    .await
}

fn content(row: ContentRow) -> [Value; 5] {
    [row.at.into(), row.form.into(), row.inline.into(), row.hash.into(), row.bytes.into()]
}

pub(super) async fn find(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
) -> Result<Option<Artifact>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
) -> Result<Option<Artifact>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
    suffix: &str,
) -> Result<Option<Artifact>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM artifacts WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Artifact::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// The content of an artifact, when it is small enough to be in its row.
pub(super) async fn inline_content(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
) -> Result<Option<String>> {
    let found: Option<(Option<String>,)> = scoped(
        scope,
        "SELECT content FROM artifacts WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(found.and_then(|it| it.0))
}

/// An artifact and everything below it.
pub(super) async fn subtree(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
) -> Result<Vec<Artifact>> {
    let columns = Artifact::COLUMNS.split(", ").map(|it| format!("a.{it}")).collect::<Vec<_>>();
    scoped(
        scope,
        format!(
            "WITH RECURSIVE tree (id) AS (
             SELECT id FROM artifacts WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             UNION
             SELECT child.id FROM artifacts child JOIN tree ON child.parent_id = tree.id
             WHERE child.tenant_id = $1 AND child.service_id = $2)
         SELECT {} FROM artifacts a JOIN tree ON tree.id = a.id
         WHERE a.tenant_id = $1 AND a.service_id = $2",
            columns.join(", ")
        ),
    )
    .bind(id)
    .fetch_all(conn)
    .await
}

/// The root of the tree that an artifact is in.
pub(super) async fn root(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
) -> Result<Option<ArtifactId>> {
    let found: Option<(ArtifactId,)> = scoped(
        scope,
        "WITH RECURSIVE line (id, parent_id) AS (
             SELECT id, parent_id FROM artifacts
             WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             UNION
             SELECT parent.id, parent.parent_id FROM artifacts parent
             JOIN line ON parent.id = line.parent_id
             WHERE parent.tenant_id = $1 AND parent.service_id = $2)
         SELECT id FROM line WHERE parent_id IS NULL",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|it| it.0))
}

/// Moves the levels of everything below an artifact by as much as it moved itself: a change of each.
pub(super) async fn shift_levels(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
    by: i64,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE artifacts SET level = level + $4, updated_at = $5, revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id IN (
             WITH RECURSIVE below (id) AS (
                 SELECT id FROM artifacts
                 WHERE tenant_id = $1 AND service_id = $2 AND parent_id = $3
                 UNION
                 SELECT child.id FROM artifacts child JOIN below ON child.parent_id = below.id
                 WHERE child.tenant_id = $1 AND child.service_id = $2)
             SELECT id FROM below)",
    )
    .bind(id)
    .bind(by)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// Makes roots of an artifact's children, before it goes.
pub(super) async fn orphan_children(
    conn: &mut Conn,
    scope: &Scope,
    id: ArtifactId,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE artifacts SET parent_id = NULL, updated_at = $4, revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND parent_id = $3",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: ArtifactId) -> Result<()> {
    scoped(scope, "DELETE FROM artifacts WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}
