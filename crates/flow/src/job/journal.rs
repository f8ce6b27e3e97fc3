//! What jobs write down while they run: `job_steps` and `job_logs`.

use modelyard_kernel::db::{Conn, Json, Result, scoped};
use modelyard_kernel::{Scope, Time, columns};
use serde_json::value::RawValue;

use super::model::{Hold, JobId, LogLine, Reported, Step};

/// How many lines of a job are kept; the first ones go when there are more.
pub(super) const KEPT_LINES: i64 = 10_000;

/// A result that was journaled.
#[derive(Debug)]
pub(super) struct Journaled {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) result: Box<RawValue>,
}

columns!(Journaled: name, node, result);

pub(super) async fn steps(conn: &mut Conn, scope: &Scope, job: JobId) -> Result<Vec<Journaled>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM job_steps WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3",
            Journaled::COLUMNS
        ),
    )
    .bind(job)
    .fetch_all(conn)
    .await
}

/// The steps that a job has done, in the order in which it did them.
pub(super) async fn done(conn: &mut Conn, scope: &Scope, job: JobId) -> Result<Vec<Step>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM job_steps WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3
             ORDER BY finished_at, name",
            Step::COLUMNS
        ),
    )
    .bind(job)
    .fetch_all(conn)
    .await
}

/// A step that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) name: String,
    /// Where its result is of use; empty when that is everywhere.
    pub(super) node: String,
    pub(super) result: Box<RawValue>,
    pub(super) attempt: i64,
    pub(super) started_at: Time,
    pub(super) finished_at: Time,
}

/// Writes down the result of a step, over an earlier one only if `replaces`. One that stands already is
/// fine when it is this very one: the answer to its commit may have been lost.
pub(super) async fn write(
    conn: &mut Conn,
    scope: &Scope,
    job: JobId,
    done: Done,
    replaces: bool,
) -> Result<bool> {
    let conflict = if replaces {
        " ON CONFLICT (tenant_id, service_id, job_id, name, node) DO UPDATE SET
             result = excluded.result, attempt = excluded.attempt,
             started_at = excluded.started_at, finished_at = excluded.finished_at"
    } else {
        " ON CONFLICT DO NOTHING"
    };
    let (name, node, started_at) = (done.name.clone(), done.node.clone(), done.started_at);
    let written = scoped(
        scope,
        format!(
            "INSERT INTO job_steps (tenant_id, service_id, job_id, name, node, result, attempt,
                 started_at, finished_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9){conflict}"
        ),
    )
    .bind(job)
    .bind(done.name)
    .bind(done.node)
    .bind(done.result)
    .bind(done.attempt)
    .bind(done.started_at)
    .bind(done.finished_at)
    .execute(conn)
    .await?;
    if written > 0 {
        return Ok(true);
    }
    let found: Option<(i64, Time)> = scoped(
        scope,
        "SELECT attempt, started_at FROM job_steps WHERE tenant_id = $1 AND service_id = $2
             AND job_id = $3 AND name = $4 AND node = $5",
    )
    .bind(job)
    .bind(name)
    .bind(node)
    .fetch_optional(conn)
    .await?;
    Ok(found == Some((done.attempt, started_at)))
}

/// Shows how far a job has come and what it printed last, in its record. Whoever does not hold it
/// any more changes nothing.
pub(super) async fn show(
    conn: &mut Conn,
    scope: &Scope,
    hold: Hold,
    progress: Option<Reported>,
    tail: Option<Vec<String>>,
) -> Result<bool> {
    let shown = scoped(
        scope,
        "UPDATE jobs SET progress = COALESCE($5, progress), log_tail = COALESCE($6, log_tail),
                revision = revision + 1
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3 AND token = $4
             AND status = 'running'",
    )
    .bind(hold.job)
    .bind(hold.token)
    .bind(progress.map(Json))
    .bind(tail.map(Json))
    .execute(conn)
    .await?;
    Ok(shown > 0)
}

/// The number of the last line that a job printed.
pub(super) async fn last_line(conn: &mut Conn, scope: &Scope, job: JobId) -> Result<i64> {
    let (last,): (Option<i64>,) = scoped(
        scope,
        "SELECT MAX(last_seq) FROM job_logs
         WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3",
    )
    .bind(job)
    .fetch_one(conn)
    .await?;
    Ok(last.unwrap_or(0))
}

/// Keeps lines, and drops the first ones when there are too many.
pub(super) async fn add_lines(
    conn: &mut Conn,
    scope: &Scope,
    job: JobId,
    lines: Vec<LogLine>,
) -> Result<()> {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(()) };
    let (first, last) = (first.seq, last.seq);
    scoped(
        scope,
        "INSERT INTO job_logs (tenant_id, service_id, job_id, first_seq, last_seq, lines)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(job)
    .bind(first)
    .bind(last)
    .bind(Json(lines))
    .execute(conn)
    .await?;
    if last > KEPT_LINES {
        scoped(
            scope,
            "DELETE FROM job_logs
             WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3 AND last_seq <= $4",
        )
        .bind(job)
        .bind(last - KEPT_LINES)
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Up to `most` lines after number `after`.
pub(super) async fn lines(
    conn: &mut Conn,
    scope: &Scope,
    job: JobId,
    after: i64,
    most: i64,
) -> Result<Vec<LogLine>> {
    let (begin,): (Option<i64>,) = scoped(
        scope,
        "SELECT MIN(first_seq) FROM job_logs WHERE tenant_id = $1 AND service_id = $2
             AND job_id = $3 AND last_seq > $4",
    )
    .bind(job)
    .bind(after)
    .fetch_one(conn)
    .await?;
    let Some(begin) = begin.map(|it| it.max(after)) else { return Ok(Vec::new()) };
    let found: Vec<(Json<Vec<LogLine>>,)> = scoped(
        scope,
        "SELECT lines FROM job_logs WHERE tenant_id = $1 AND service_id = $2 AND job_id = $3
             AND last_seq > $4 AND first_seq <= $5 ORDER BY first_seq",
    )
    .bind(job)
    .bind(after)
    // Numbers have no gaps, but for lines that are gone.
    .bind(begin.saturating_add(most))
    .fetch_all(conn)
    .await?;
    let lines = found.into_iter().flat_map(|it| it.0.0).filter(|it| it.seq > after);
    Ok(lines.take(usize::try_from(most).unwrap_or(usize::MAX)).collect())
}
