//! The `jobs` table.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time};

use super::model::{Claimed, Ending, Job, JobId, NewJob};

/// Adds a job unless `max` wait already; false then.
pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    new: NewJob,
    max: i64,
    now: Time,
) -> Result<bool> {
    let NewJob { id, kind, input, artifact } = new;
    let added = scoped(
        scope,
        "INSERT INTO jobs (tenant_id, service_id, id, kind, status, input, promised_id, submitted_at)
         SELECT $1, $2, $3, $4, 'pending', $5, $6, $7
         WHERE (SELECT COUNT(*) FROM jobs
                WHERE tenant_id = $1 AND service_id = $2 AND status = 'pending') < $8",
    )
    .bind(id)
    .bind(kind)
    .bind(input)
    .bind(artifact)
    .bind(now)
    .bind(max)
    .execute(conn)
    .await?;
    Ok(added > 0)
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<Option<Job>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<Option<Job>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(conn: &mut Conn, scope: &Scope, id: JobId, suffix: &str) -> Result<Option<Job>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Job::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Takes the job that has waited longest.
pub(super) async fn claim(
    conn: &mut Conn,
    scope: &Scope,
    node: &str,
    now: Time,
) -> Result<Option<Claimed>> {
    // Nodes that claim at the same moment pass over each other's rows.
    let skip = if conn.for_update().is_empty() { "" } else { " FOR UPDATE SKIP LOCKED" };
    scoped(
        scope,
        format!(
            "UPDATE jobs SET status = 'running', started_at = $3, node = $4
         WHERE tenant_id = $1 AND service_id = $2 AND id = (
             SELECT id FROM jobs
             WHERE tenant_id = $1 AND service_id = $2 AND status = 'pending'
             ORDER BY id LIMIT 1{skip})
         RETURNING {}",
            Claimed::COLUMNS
        ),
    )
    .bind(now)
    .bind(node)
    .fetch_optional(conn)
    .await
}

/// Records the end of a job; false when it was not running, since somebody removed its record.
pub(super) async fn finish(
    conn: &mut Conn,
    scope: &Scope,
    id: JobId,
    ending: Ending,
    now: Time,
) -> Result<bool> {
    let ended = scoped(
        scope,
        "UPDATE jobs SET status = $4, artifact_id = $5, error = $6, error_traceback = $7,
                finished_at = $8, input = NULL, node = NULL
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND status = 'running'",
    )
    .bind(id)
    .bind(ending.status)
    .bind(ending.artifact)
    .bind(ending.error)
    .bind(ending.traceback)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(ended > 0)
}

/// Puts a job back that was interrupted through no fault of its own.
pub(super) async fn requeue(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<()> {
    scoped(
        scope,
        "UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND status = 'running'",
    )
    .bind(id)
    .execute(conn)
    .await
    .map(drop)
}

/// Puts back what this node was doing when it died. Returns how many jobs that is.
pub(super) async fn requeue_node(conn: &mut Conn, scope: &Scope, node: &str) -> Result<u64> {
    scoped(
        scope,
        "UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL
         WHERE tenant_id = $1 AND service_id = $2 AND node = $3 AND status = 'running'",
    )
    .bind(node)
    .execute(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<()> {
    scoped(scope, "DELETE FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}
