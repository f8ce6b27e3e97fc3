//! The records: `jobs`, `job_inputs`, `job_keys` and `paused_queues`, one service at a time. What is
//! about the work of all of them is in `claims.rs`.

use modelyard_kernel::db::{Conn, Result, scoped};
use modelyard_kernel::{RequestKey, Scope, Time, Ulid, Wishes, columns, failpoint};

use super::model::{Ending, Hold, Job, JobId, NewJob, Queue};

/// Inputs up to this size are in the job's row, which is written again with every change of it.
pub(super) const INLINE: i64 = 8 << 10;

/// How much may wait in a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) jobs: i64,
    pub(super) bytes: i64,
}

/// What a job begins with, beside what is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) queue: &'a str,
    pub(super) max_attempts: i64,
    pub(super) deadline_at: Option<Time>,
    /// Asked when the service may be near its limits.
    pub(super) room: Option<Room>,
    pub(super) now: Time,
}

/// Adds a job; false when there is no room, or another with its unique key waits.
pub(super) async fn insert(
    conn: &mut Conn,
    scope: &Scope,
    new: NewJob,
    terms: Terms<'_>,
) -> Result<bool> {
    let NewJob { id, kind, mut input, artifact, owner, unique, retry_of, wishes } = new;
    let Wishes { label, priority, run_at, .. } = wishes;
    let bytes = i64::try_from(input.len()).unwrap_or(i64::MAX);
    if bytes > INLINE {
        // First, so that whoever sees the job finds its input.
        put_input(conn, scope, id, std::mem::take(&mut input), terms.now).await?;
        failpoint::reach("input.stored");
    }
    let room = match terms.room {
        None => "",
        Some(_) => {
            " WHERE (SELECT COUNT(*) FROM jobs
                    WHERE tenant_id = $1 AND service_id = $2 AND queue = $9
                        AND status = 'pending') < $19
               AND (SELECT COALESCE(CAST(SUM(input_bytes) AS BIGINT), 0) FROM jobs
                    WHERE tenant_id = $1 AND service_id = $2 AND queue = $9
                        AND status = 'pending') + $17 <= $20"
        }
    };
    let query = scoped(
        scope,
        format!(
            "INSERT INTO jobs (tenant_id, service_id, id, kind, status, input, promised_id,
                 submitted_at, queue, priority, label, owner, unique_key, serial_key, run_at,
                 deadline_at, max_attempts, input_bytes, retry_of)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, $15, $16, $17, $18
             {room}
             ON CONFLICT DO NOTHING"
        ),
    )
    .bind(id)
    .bind(kind)
    .bind("pending")
    .bind((bytes <= INLINE).then_some(input))
    .bind(artifact)
    .bind(terms.now)
    .bind(terms.queue)
    .bind(priority.unwrap_or(0))
    .bind(label)
    .bind(owner)
    .bind(unique)
    .bind(run_at.unwrap_or(terms.now))
    .bind(terms.deadline_at)
    .bind(terms.max_attempts)
    .bind(bytes)
    .bind(retry_of);
    let query = match terms.room {
        None => query,
        Some(Room { jobs, bytes }) => query.bind(jobs).bind(bytes),
    };
    let added = query.execute(conn).await? > 0;
    if !added && bytes > INLINE {
        delete_input(conn, scope, id).await?;
    }
    Ok(added)
}

/// The job of a kind that waits under a unique key.
pub(super) async fn find_unique(
    conn: &mut Conn,
    scope: &Scope,
    kind: &str,
    key: &str,
) -> Result<Option<(JobId, Option<Ulid>)>> {
    scoped(
        scope,
        "SELECT id, promised_id FROM jobs WHERE tenant_id = $1 AND service_id = $2
             AND kind = $3 AND unique_key = $4 AND status = 'pending'",
    )
    .bind(kind)
    .bind(key)
    .fetch_optional(conn)
    .await
}

/// How many jobs of a queue wait, and how many bytes their inputs have.
pub(super) async fn waiting(conn: &mut Conn, scope: &Scope, queue: &str) -> Result<Room> {
    let (jobs, bytes) = scoped(
        scope,
        "SELECT COUNT(*), COALESCE(CAST(SUM(input_bytes) AS BIGINT), 0) FROM jobs
         WHERE tenant_id = $1 AND service_id = $2 AND queue = $3 AND status = 'pending'",
    )
    .bind(queue)
    .fetch_one(conn)
    .await?;
    Ok(Room { jobs, bytes })
}

async fn put_input(
    conn: &mut Conn,
    scope: &Scope,
    id: JobId,
    input: Vec<u8>,
    now: Time,
) -> Result<()> {
    scoped(
        scope,
        "INSERT INTO job_inputs (tenant_id, service_id, job_id, input, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(input)
    .bind(now)
    .execute(conn)
    .await
    .map(drop)
}

/// A large input.
pub(super) async fn input(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<Option<Vec<u8>>> {
    let found: Option<(Vec<u8>,)> = scoped(
        scope,
        "SELECT input FROM job_inputs WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|it| it.0))
}

pub(super) async fn delete_input(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<()> {
    scoped(scope, "DELETE FROM job_inputs WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

/// What a client's name for a request stands for.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) fingerprint: String,
    pub(super) job_id: JobId,
    pub(super) artifact_id: Option<Ulid>,
}

columns!(Remembered: fingerprint, job_id, artifact_id);

/// Remembers a request, and what it asked for; what was remembered under its name before stays.
pub(super) async fn remember(
    conn: &mut Conn,
    scope: &Scope,
    key: &RequestKey,
    job: JobId,
    artifact: Option<Ulid>,
    now: Time,
) -> Result<bool> {
    let added = scoped(
        scope,
        "INSERT INTO job_keys (tenant_id, service_id, name, fingerprint, job_id, artifact_id,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(&key.name)
    .bind(&key.fingerprint)
    .bind(job)
    .bind(artifact)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(added > 0)
}

pub(super) async fn remembered(
    conn: &mut Conn,
    scope: &Scope,
    name: &str,
) -> Result<Option<Remembered>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM job_keys WHERE tenant_id = $1 AND service_id = $2 AND name = $3",
            Remembered::COLUMNS
        ),
    )
    .bind(name)
    .fetch_optional(conn)
    .await
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

/// Whether a job has not ended.
pub(super) async fn unfinished(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<bool> {
    let (count,): (i64,) = scoped(
        scope,
        "SELECT COUNT(*) FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             AND status IN ('pending', 'running')",
    )
    .bind(id)
    .fetch_one(conn)
    .await?;
    Ok(count > 0)
}

/// Whether a job that has not ended has promised a result under an id.
pub(super) async fn promised(conn: &mut Conn, scope: &Scope, artifact: Ulid) -> Result<bool> {
    let found: Option<(JobId,)> = scoped(
        scope,
        "SELECT id FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND promised_id = $3
             AND status IN ('pending', 'running') LIMIT 1",
    )
    .bind(artifact)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Records the end of a job; false when whoever says so does not hold it any more. What failed is
/// kept with its input, for another try.
pub(super) async fn finish(
    conn: &mut Conn,
    scope: &Scope,
    hold: Hold,
    ending: Ending,
    now: Time,
) -> Result<bool> {
    let failed = ending.error.is_some();
    let ended: Option<(i64,)> = scoped(
        scope,
        "UPDATE jobs SET status = $5, artifact_id = $6, error = $7, error_traceback = $8,
                finished_at = $9, dead_letter = $10, input = CASE WHEN $10 THEN input END,
                node = NULL, revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND token = $4
             AND status = 'running'
         RETURNING input_bytes",
    )
    .bind(hold.job)
    .bind(hold.token)
    .bind(ending.status)
    .bind(ending.artifact)
    .bind(ending.error)
    .bind(ending.traceback)
    .bind(now)
    .bind(failed)
    .fetch_optional(conn)
    .await?;
    let Some((input_bytes,)) = ended else { return Ok(false) };
    if input_bytes > INLINE && !failed {
        delete_input(conn, scope, hold.job).await?;
    }
    Ok(true)
}

/// Why a job waits once more.
#[derive(Debug)]
pub(super) struct Again {
    /// Not before; as before when it keeps its turn.
    pub(super) run_at: Option<Time>,
    /// What its attempt failed of; `None` when it did not fail, and the attempt does not count.
    pub(super) failure: Option<(String, String)>,
}

/// Lets a job wait once more; false when whoever says so does not hold it any more.
pub(super) async fn again(
    conn: &mut Conn,
    scope: &Scope,
    hold: Hold,
    again: Again,
) -> Result<bool> {
    let uncounted = i64::from(again.failure.is_none());
    let (error, traceback) = again.failure.unzip();
    let waits = scoped(
        scope,
        "UPDATE jobs SET status = 'pending', started_at = NULL, node = NULL,
                run_at = COALESCE($5, run_at),
                attempt = attempt - $6, error = COALESCE($7, error),
                error_traceback = COALESCE($8, error_traceback), revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND token = $4
             AND status = 'running'",
    )
    .bind(hold.job)
    .bind(hold.token)
    .bind(again.run_at)
    .bind(uncounted)
    .bind(error)
    .bind(traceback)
    .execute(conn)
    .await?;
    Ok(waits > 0)
}

/// Whether a claim still counts; until the transaction ends it will.
pub(super) async fn holds(conn: &mut Conn, scope: &Scope, hold: Hold) -> Result<bool> {
    let found: Option<(i64,)> = scoped(
        scope,
        format!(
            "SELECT token FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3
                 AND token = $4 AND status = 'running'{}",
            conn.for_update()
        ),
    )
    .bind(hold.job)
    .bind(hold.token)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Ends a job because nobody wants it any more.
pub(super) async fn cancel(conn: &mut Conn, scope: &Scope, id: JobId, now: Time) -> Result<()> {
    scoped(
        scope,
        "UPDATE jobs SET status = 'canceled', finished_at = $4, input = NULL, node = NULL,
                revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3
             AND status IN ('pending', 'running')",
    )
    .bind(id)
    .bind(now)
    .execute(conn)
    .await?;
    delete_input(conn, scope, id).await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<()> {
    delete_input(conn, scope, id).await?;
    scoped(scope, "DELETE FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

/// What another try of a dead letter needs.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) kind: String,
    pub(super) input: Option<Vec<u8>>,
    pub(super) promised_id: Option<Ulid>,
    pub(super) queue: String,
    pub(super) priority: i64,
    pub(super) label: Option<String>,
    pub(super) max_attempts: i64,
}

columns!(DeadLetter: kind, input, promised_id, queue, priority, label, max_attempts);

/// Takes a job off the list of dead letters; what is needed to try it again is given.
pub(super) async fn bury(conn: &mut Conn, scope: &Scope, id: JobId) -> Result<Option<DeadLetter>> {
    let found: Option<DeadLetter> = scoped(
        scope,
        format!(
            "SELECT {} FROM jobs WHERE tenant_id = $1 AND service_id = $2 AND id = $3
                 AND dead_letter{}",
            DeadLetter::COLUMNS,
            conn.for_update()
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    let Some(mut letter) = found else { return Ok(None) };
    if letter.input.is_none() {
        letter.input = input(conn, scope, id).await?;
    }
    scoped(
        scope,
        "UPDATE jobs SET dead_letter = FALSE, input = NULL, revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .execute(conn)
    .await?;
    delete_input(conn, scope, id).await?;
    Ok(Some(letter))
}

/// How many jobs of each queue wait, and run.
pub(super) async fn queues(conn: &mut Conn, scope: &Scope) -> Result<Vec<Queue>> {
    let counted: Vec<(String, String, i64)> = scoped(
        scope,
        "SELECT queue, status, COUNT(*) FROM jobs WHERE tenant_id = $1 AND service_id = $2
             AND status IN ('pending', 'running') GROUP BY queue, status",
    )
    .fetch_all(conn)
    .await?;
    let paused: Vec<(String,)> =
        scoped(scope, "SELECT queue FROM paused_queues WHERE tenant_id = $1 AND service_id = $2")
            .fetch_all(conn)
            .await?;
    let mut queues: Vec<Queue> = Vec::new();
    let mut of = |name: String| {
        queues.iter().position(|it| it.name == name).unwrap_or_else(|| {
            queues.push(Queue { name, paused: false, pending: 0, running: 0, concurrency: None });
            queues.len() - 1
        })
    };
    let marks: Vec<(usize, String, i64)> =
        counted.into_iter().map(|(name, status, count)| (of(name), status, count)).collect();
    let stopped: Vec<usize> = paused.into_iter().map(|(name,)| of(name)).collect();
    for (at, status, count) in marks {
        let queue = &mut queues[at];
        *(if status == "pending" { &mut queue.pending } else { &mut queue.running }) = count;
    }
    for at in stopped {
        queues[at].paused = true;
    }
    Ok(queues)
}

/// False when it was paused already.
pub(super) async fn pause(conn: &mut Conn, scope: &Scope, queue: &str, now: Time) -> Result<bool> {
    scoped(
        scope,
        "INSERT INTO paused_queues (tenant_id, service_id, queue, paused_at)
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(queue)
    .bind(now)
    .execute(conn)
    .await
    .map(|changed| changed > 0)
}

/// False when it was not paused.
pub(super) async fn resume(conn: &mut Conn, scope: &Scope, queue: &str) -> Result<bool> {
    scoped(
        scope,
        "DELETE FROM paused_queues WHERE tenant_id = $1 AND service_id = $2 AND queue = $3",
    )
    .bind(queue)
    .execute(conn)
    .await
    .map(|changed| changed > 0)
}
