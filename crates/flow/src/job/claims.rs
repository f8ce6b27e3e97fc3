//! Who does what: statements of the machinery, which does the work of every tenant. They have no
//! scope; each row that they give names its own.

use std::time::Duration;

use modelyard_kernel::db::{Conn, Db, Dialect, Json, Result, query};
use modelyard_kernel::{Failure, Time, columns};

use super::model::{Claimed, Hold, JobId, Lane};

use futures_util::FutureExt;

/// A lane in which jobs wait.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) tenant_id: String,
    pub(super) service_id: String,
    pub(super) queue: String,
    /// How many of them are due.
    pub(super) due: i64,
    /// When the first of the others is.
    pub(super) next_at: Option<Time>,
    /// When the first of all must be done.
    pub(super) deadline_at: Option<Time>,
}

columns!(Waiting: tenant_id, service_id, queue, due, next_at, deadline_at);

/// The lanes in which jobs wait; in those that are paused none is due.
pub(super) async fn survey(conn: &mut Conn, now: Time) -> Result<Vec<Waiting>> {
    query(
        "SELECT jobs.tenant_id, jobs.service_id, jobs.queue,
             COUNT(CASE WHEN paused_at IS NULL AND run_at <= $1 THEN 1 END) AS due,
             MIN(CASE WHEN paused_at IS NULL AND run_at > $1 THEN run_at END) AS next_at,
             MIN(deadline_at) AS deadline_at
         FROM jobs LEFT JOIN paused_queues ON paused_queues.tenant_id = jobs.tenant_id
             AND paused_queues.service_id = jobs.service_id
             AND paused_queues.queue = jobs.queue
         WHERE status = 'pending'
         GROUP BY jobs.tenant_id, jobs.service_id, jobs.queue",
    )
    .bind(now)
    .fetch_all(conn)
    .await
}

/// Fails what waits and cannot be done by its deadline any more; `error` says so. Returns how many jobs
/// that is.
pub(super) async fn fail_late(conn: &mut Conn, error: &str, now: Time) -> Result<u64> {
    query(
        "UPDATE jobs SET status = 'failed', error = $2, finished_at = $1, dead_letter = $3,
             revision = revision + 1
         WHERE status = 'pending' AND deadline_at <= $1",
    )
    .bind(now)
    .bind(error)
    .bind(true)
    .execute(conn)
    .await
}

/// Takes up to `most` jobs of a lane: of those that are due the ones of the highest priority, and of
/// those the ones that are due longest.
pub(super) async fn claim(
    conn: &mut Conn,
    lane: &Lane,
    node: &str,
    most: usize,
    now: Time,
) -> Result<Vec<Claimed>> {
    // Nodes that claim at the same moment pass over each other's rows. That a claim is on the disk need
    // not be waited for: one that a crash of the server undoes is as one that its node lost.
    let (at_once, skip, row) = match conn.dialect() {
        Dialect::Sqlite => ("", "", "id"),
        Dialect::Postgres => (
            " AND (SELECT set_config('synchronous_commit', 'off', TRUE)) IS NOT NULL",
            " FOR UPDATE SKIP LOCKED",
            "ctid",
        ),
    };
    // The limit is part of the text, so that a planner knows how few rows it is for. A key is unique among
    // those that wait; one that waits again must not meet its successor.
    let mut claimed: Vec<Claimed> = query(format!(
        "WITH due AS MATERIALIZED (
             SELECT tenant_id, service_id, {row} AS claimed FROM jobs
             WHERE tenant_id || '/' || service_id || '/' || queue = $1 AND status = 'pending'
                 AND run_at <= $2 AND NOT EXISTS (
                     SELECT 1 FROM paused_queues
                     WHERE tenant_id || '/' || service_id || '/' || queue = $1)
                 AND (serial_key IS NULL OR NOT EXISTS (
                     SELECT 1 FROM jobs AS other
                     WHERE other.tenant_id = jobs.tenant_id AND other.service_id = jobs.service_id
                         AND other.kind = jobs.kind AND other.serial_key = jobs.serial_key
                         AND other.status IN ('pending', 'running') AND other.id < jobs.id)){at_once}
             ORDER BY priority DESC, run_at, id LIMIT {most}{skip})
         UPDATE jobs SET status = 'running', started_at = $2, node = $3, unique_key = NULL,
             token = CASE WHEN token < $4 THEN $4 ELSE token + 1 END, attempt = attempt + 1,
             revision = revision + 1
         FROM due WHERE jobs.tenant_id = due.tenant_id AND jobs.service_id = due.service_id
             AND jobs.{row} = due.claimed
         RETURNING {}",
        Claimed::COLUMNS
    ))
    .bind(lane.key())
    .bind(now)
    .bind(node)
    // Of the present moment, so that it is not that of a claim which was undone.
    .bind(now.micros())
    .fetch_all(conn)
    .await?;
    // What an update returns is in no order.
    claimed.sort_by_key(Claimed::turn);
    Ok(claimed)
}

/// Puts back what this node was doing when it died. Returns how many jobs that is.
pub(super) async fn requeue_own(conn: &mut Conn, node: &str) -> Result<u64> {
    query(
        "UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL, lost = lost + 1,
             revision = revision + 1
         WHERE node = $1 AND status = 'running'",
    )
    .bind(node)
    .execute(conn)
    .await
}

/// Unfinished jobs with steps that are of use on this node only.
pub(super) async fn with_local_steps(conn: &mut Conn, node: &str) -> Result<Vec<JobId>> {
    let found: Vec<(JobId,)> = query(
        "SELECT DISTINCT job_id FROM job_steps WHERE node = $1 AND EXISTS (
             SELECT 1 FROM jobs WHERE jobs.tenant_id = job_steps.tenant_id
                 AND jobs.service_id = job_steps.service_id AND jobs.id = job_steps.job_id
                 AND jobs.status IN ('pending', 'running'))",
    )
    .bind(node)
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|it| it.0).collect())
}

/// What a beat is to do, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) node: String,
    /// How long the others may count on this node from now on; `None` when it does nothing.
    pub(super) lease: Option<Duration>,
    /// Whether jobs of nodes that nobody can count on any more are put back.
    pub(super) takes_over: bool,
    pub(super) now: Time,
}

/// What a beat found.
#[derive(Debug, Default)]
pub(super) struct Beaten {
    /// The jobs that are still this node's.
    pub(super) own: Vec<Hold>,
    /// How many were put back.
    pub(super) taken_over: i64,
}

/// Says that this node lives, puts back the jobs of those that do not, and tells which jobs are this
/// node's own. On PostgreSQL the time is the server's, so that no two clocks are compared.
pub(super) async fn beat(db: &Db, beat: Beat) -> Result<Beaten, Failure> {
    if db.dialect() == Dialect::Sqlite {
        return db
            .transaction(move |conn| async move { Ok(beat_sqlite(conn, &beat).await?) }.boxed())
            .await;
    }
    let found: Vec<(Option<JobId>, Option<i64>, i64)> = query(
        "WITH lives AS (
             INSERT INTO nodes (id, lease_until)
             SELECT $1, clock_timestamp() + $2::BIGINT * INTERVAL '1 millisecond' WHERE $2::BIGINT > 0
             ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until),
         taken AS (
             UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL, lost = lost + 1,
                 revision = revision + 1
             WHERE status = 'running' AND $3::BOOLEAN AND node <> $1 AND NOT EXISTS (
                 SELECT 1 FROM nodes
                 WHERE nodes.id = jobs.node AND nodes.lease_until >= clock_timestamp())
             RETURNING id)
         SELECT id, token, 0::BIGINT FROM jobs WHERE node = $1 AND status = 'running'
         UNION ALL SELECT NULL, NULL, COUNT(*) FROM taken",
    )
    .bind(&beat.node)
    .bind(beat.lease.map_or(0, millis))
    .bind(beat.takes_over)
    .fetch_all(&mut db.conn_aside().await?)
    .await?;
    let mut beaten = Beaten::default();
    for (job, token, taken_over) in found {
        beaten.taken_over += taken_over;
        beaten.own.extend(job.zip(token).map(|(job, token)| Hold { job, token }));
    }
    Ok(beaten)
}

async fn beat_sqlite(conn: &mut Conn, beat: &Beat) -> Result<Beaten> {
    if let Some(lease) = beat.lease {
        query(
            "INSERT INTO nodes (id, lease_until) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
        )
        .bind(&beat.node)
        .bind(beat.now.after(lease))
        .execute(conn)
        .await?;
    }
    let mut beaten = Beaten::default();
    if beat.takes_over {
        let taken = query(
            "UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL, lost = lost + 1,
                 revision = revision + 1
             WHERE status = 'running' AND node <> $1 AND NOT EXISTS (
                 SELECT 1 FROM nodes WHERE nodes.id = jobs.node AND nodes.lease_until >= $2)",
        )
        .bind(&beat.node)
        .bind(beat.now)
        .execute(conn)
        .await?;
        beaten.taken_over = i64::try_from(taken).unwrap_or(i64::MAX);
    }
    if beat.lease.is_some() {
        let own: Vec<(JobId, i64)> =
            query("SELECT id, token FROM jobs WHERE node = $1 AND status = 'running'")
                .bind(&beat.node)
                .fetch_all(conn)
                .await?;
        beaten.own = own.into_iter().map(|(job, token)| Hold { job, token }).collect();
    }
    Ok(beaten)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// From when on what may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// Everything about jobs that ended before.
    pub(super) ended: Time,
    /// Names of requests from before.
    pub(super) keys: Time,
    /// What steps came to, of jobs that ended since.
    pub(super) since: Time,
    pub(super) now: Time,
}

/// Removes what has expired, inputs that nobody refers to, and nodes that are long gone. Returns how
/// many jobs that is.
pub(super) async fn expire(conn: &mut Conn, expiry: Expiry) -> Result<u64> {
    let Expiry { ended, keys, since, now } = expiry;
    query(
        "DELETE FROM job_inputs WHERE created_at < $1 AND NOT EXISTS (
             SELECT 1 FROM jobs WHERE jobs.tenant_id = job_inputs.tenant_id
                 AND jobs.service_id = job_inputs.service_id AND jobs.id = job_inputs.job_id
                 AND (jobs.dead_letter OR jobs.status IN ('pending', 'running')))",
    )
    .bind(keys)
    .execute(conn)
    .await?;
    query("DELETE FROM job_keys WHERE created_at < $1").bind(keys).execute(conn).await?;
    query("DELETE FROM nodes WHERE lease_until < $1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE node = nodes.id)")
        .bind(now.before(Duration::from_secs(24 * 60 * 60)))
        .execute(conn)
        .await?;
    // What steps came to is of no use after the end, and may be large.
    query(
        "UPDATE job_steps SET result = $1 WHERE (tenant_id, service_id, job_id) IN (
             SELECT tenant_id, service_id, id FROM jobs WHERE finished_at >= $2)
             AND CAST(result AS TEXT) <> 'null'",
    )
    .bind(Json(()))
    .bind(since)
    .execute(conn)
    .await?;
    query("DELETE FROM jobs WHERE finished_at < $1").bind(ended).execute(conn).await
}
