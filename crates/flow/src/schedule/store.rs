//! The `schedules` and `schedule_runs` tables.

use modelyard_kernel::db::{Conn, Query, Result, Value, scoped};
use modelyard_kernel::{Scope, Time, Ulid};

use super::model::{HISTORY, Overlap, Run, Schedule, ScheduleId, Target, TickOutcome, Trigger};

/// False when the id is taken.
pub(super) async fn insert(conn: &mut Conn, scope: &Scope, it: &Schedule) -> Result<bool> {
    let sql = "INSERT INTO schedules (tenant_id, service_id, id, created_at, updated_at, name,
             enabled, expression, time_zone, every_seconds, anchor, kind, input, misfire, overlap,
             jitter_seconds, next_at, last_at, next_tick, owner, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19, $20, $21)
         ON CONFLICT (tenant_id, service_id, id) DO NOTHING";
    Ok(bind(scoped(scope, sql), it).execute(conn).await? > 0)
}

/// Writes all of it.
pub(super) async fn update(conn: &mut Conn, scope: &Scope, it: &Schedule) -> Result<()> {
    let sql = "UPDATE schedules SET created_at = $4, updated_at = $5, name = $6, enabled = $7,
             expression = $8, time_zone = $9, every_seconds = $10, anchor = $11, kind = $12,
             input = $13, misfire = $14, overlap = $15, jitter_seconds = $16, next_at = $17,
             last_at = $18, next_tick = $19, owner = $20, revision = $21
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3";
    bind(scoped(scope, sql), it).execute(conn).await.map(drop)
}

fn bind(query: Query, it: &Schedule) -> Query {
    let Schedule {
        id,
        created_at,
        updated_at,
        name,
        enabled,
        trigger,
        target: Target { kind, input },
        misfire,
        overlap,
        jitter_seconds,
        next_at,
        last_at,
        next_tick,
        owner,
        revision,
    } = it;
    let when: [Value; 4] = match trigger {
        Trigger::Cron { expression, time_zone } => {
            [expression.into(), time_zone.into(), Value::Null, Value::Null]
        }
        Trigger::Interval { every_seconds, anchor } => {
            [Value::Null, Value::Null, (*every_seconds).into(), (*anchor).into()]
        }
    };
    query
        .bind(*id)
        .bind(*created_at)
        .bind(*updated_at)
        .bind(name)
        .bind(*enabled)
        .bind_all(when)
        .bind(kind)
        .bind(&**input)
        .bind(*misfire)
        .bind(*overlap)
        .bind(*jitter_seconds)
        .bind(*next_at)
        .bind(*last_at)
        .bind(*next_tick)
        .bind(owner)
        .bind(*revision)
}

pub(super) async fn find(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
) -> Result<Option<Schedule>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends: of several nodes, one begins its tick.
pub(super) async fn lock(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
) -> Result<Option<Schedule>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    suffix: &str,
) -> Result<Option<Schedule>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM schedules WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Schedule::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: ScheduleId) -> Result<()> {
    scoped(scope, "DELETE FROM schedules WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

/// The schedules that are next, and when; whoever has to be done with waits in front.
pub(super) async fn soonest(
    conn: &mut Conn,
    scope: &Scope,
    limit: usize,
) -> Result<Vec<(ScheduleId, Time)>> {
    scoped(
        scope,
        format!(
            "SELECT id, next_at FROM schedules
             WHERE tenant_id = $1 AND service_id = $2 AND next_at IS NOT NULL AND enabled
             ORDER BY next_at, id LIMIT {limit}"
        ),
    )
    .fetch_all(conn)
    .await
}

/// Moves a schedule on to its next tick.
pub(super) async fn advance(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    next: Option<(Time, Time)>,
    last_at: Option<Time>,
) -> Result<()> {
    scoped(
        scope,
        "UPDATE schedules SET next_tick = $4, next_at = $5, last_at = COALESCE($6, last_at)
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3",
    )
    .bind(id)
    .bind(next.map(|it| it.0))
    .bind(next.map(|it| it.1))
    .bind(last_at)
    .execute(conn)
    .await
    .map(drop)
}

/// Writes down what became of a tick; false when that stands there already.
pub(super) async fn add_run(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    run: &Run,
) -> Result<bool> {
    let Run { tick_at, fired_at, outcome, manual, job_id, error } = run;
    let added = scoped(
        scope,
        "INSERT INTO schedule_runs (tenant_id, service_id, schedule_id, tick_at, fired_at, outcome,
                manual, job_id, settled, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (tenant_id, service_id, schedule_id, tick_at) DO NOTHING",
    )
    .bind(id)
    .bind(*tick_at)
    .bind(*fired_at)
    .bind(*outcome)
    .bind(*manual)
    .bind(*job_id)
    .bind(false)
    .bind(error.clone())
    .execute(conn)
    .await?;
    Ok(added > 0)
}

/// Removes all but the newest of a history. Where jobs must not overlap, one that may still run
/// stays, however many ticks were skipped for it.
pub(super) async fn trim(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    overlap: Overlap,
) -> Result<()> {
    scoped(
        scope,
        format!(
            "DELETE FROM schedule_runs
             WHERE tenant_id = $1 AND service_id = $2 AND schedule_id = $3 AND tick_at <= (
                 SELECT tick_at FROM schedule_runs
                 WHERE tenant_id = $1 AND service_id = $2 AND schedule_id = $3
                 ORDER BY tick_at DESC LIMIT 1 OFFSET {HISTORY})
             AND (settled OR outcome <> $4 OR $5)"
        ),
    )
    .bind(id)
    .bind(TickOutcome::Fired)
    .bind(overlap != Overlap::Skip)
    .execute(conn)
    .await
    .map(drop)
}

/// What became of the ticks of a schedule, newest first.
pub(super) async fn history(conn: &mut Conn, scope: &Scope, id: ScheduleId) -> Result<Vec<Run>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM schedule_runs
             WHERE tenant_id = $1 AND service_id = $2 AND schedule_id = $3 ORDER BY tick_at DESC",
            Run::COLUMNS
        ),
    )
    .bind(id)
    .fetch_all(conn)
    .await
}

/// What became of one tick.
pub(super) async fn run_at(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    tick: Time,
) -> Result<Option<Run>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM schedule_runs WHERE tenant_id = $1 AND service_id = $2
                 AND schedule_id = $3 AND tick_at = $4",
            Run::COLUMNS
        ),
    )
    .bind(id)
    .bind(tick)
    .fetch_optional(conn)
    .await
}

/// The jobs that a schedule has begun and that may not have ended, the newest first.
pub(super) async fn open_jobs(conn: &mut Conn, scope: &Scope, id: ScheduleId) -> Result<Vec<Ulid>> {
    let rows: Vec<(Ulid,)> = scoped(
        scope,
        "SELECT job_id FROM schedule_runs WHERE tenant_id = $1 AND service_id = $2
             AND schedule_id = $3 AND outcome = $4 AND job_id IS NOT NULL AND NOT settled
         ORDER BY tick_at DESC",
    )
    .bind(id)
    .bind(TickOutcome::Fired)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|it| it.0).collect())
}

/// Writes down that all jobs of a schedule have ended.
pub(super) async fn settle(conn: &mut Conn, scope: &Scope, id: ScheduleId) -> Result<()> {
    scoped(
        scope,
        "UPDATE schedule_runs SET settled = $4 WHERE tenant_id = $1 AND service_id = $2
             AND schedule_id = $3 AND NOT settled",
    )
    .bind(id)
    .bind(true)
    .execute(conn)
    .await
    .map(drop)
}

/// Whether a schedule has begun this job.
pub(super) async fn has_begun(
    conn: &mut Conn,
    scope: &Scope,
    id: ScheduleId,
    job: Ulid,
) -> Result<bool> {
    let found: Option<(i64,)> = scoped(
        scope,
        "SELECT 1 FROM schedule_runs WHERE tenant_id = $1 AND service_id = $2
             AND schedule_id = $3 AND job_id = $4 LIMIT 1",
    )
    .bind(id)
    .bind(job)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}
