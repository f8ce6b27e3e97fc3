//! The `jobs` table.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::{Claimed, Job, JobId, JobStatus, NewJob};

pub(super) async fn insert(conn: &mut Conn, scope: &Scope, new: NewJob, now: Time) -> Result<()> {
    let NewJob { id, kind, input, artifact } = new;
    scoped(
        scope,
        "INSERT INTO jobs (tenant_id, service_id, id, kind, status, input, promised_id, submitted_at)
         VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7)",
    )
    .bind(id)
    .bind(kind)
    .bind(input)
    .bind(artifact)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
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

pub(super) async fn count_pending(conn: &mut Conn, scope: &Scope) -> Result<i64> {
    let (count,) = scoped(
        scope,
        "SELECT COUNT(*) FROM jobs
         WHERE tenant_id = $1 AND service_id = $2 AND status = 'pending'",
    )
    .fetch_one(conn)
    .await?;
    Ok(count)
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

/// How a job ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: JobStatus,
    pub(super) artifact: Option<Ulid>,
    pub(super) error: Option<String>,
    pub(super) traceback: Option<String>,
}

pub(super) async fn finish(
    conn: &mut Conn,
    scope: &Scope,
    id: JobId,
    ending: Ending,
    now: Time,
) -> Result<()> {
    scoped(
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
    .await
    .map(drop)
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
