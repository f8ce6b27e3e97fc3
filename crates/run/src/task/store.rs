//! The `tasks` table.

use modelyard_kernel::db::{Conn, Json, Result, scoped};
use modelyard_kernel::{Scope, Time};
use serde_json::value::RawValue;

use super::model::{Task, TaskId, TaskType};

/// A row to be written.
#[derive(Debug)]
pub(super) struct TaskRow {
    pub(super) id: TaskId,
    pub(super) command: String,
    pub(super) task_type: TaskType,
    pub(super) parameters: Option<Json<Box<RawValue>>>,
    pub(super) enabled: bool,
    pub(super) now: Time,
}

/// `None` when the id is taken.
pub(super) async fn insert(conn: &mut Conn, scope: &Scope, row: TaskRow) -> Result<Option<Task>> {
    let TaskRow { id, command, task_type, parameters, enabled, now } = row;
    scoped(
        scope,
        format!(
            "INSERT INTO tasks (tenant_id, service_id, id, command, task_type, parameters, enabled,
                            revision, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8)
         ON CONFLICT (tenant_id, service_id, id) DO NOTHING
         RETURNING {}",
            Task::COLUMNS
        ),
    )
    .bind(id)
    .bind(command)
    .bind(task_type)
    .bind(parameters)
    .bind(enabled)
    .bind(now)
    .fetch_optional(conn)
    .await
}

/// Parameters that are absent stay as they are.
pub(super) async fn update(conn: &mut Conn, scope: &Scope, row: TaskRow) -> Result<Task> {
    let TaskRow { id, command, task_type, parameters, enabled, now } = row;
    scoped(
        scope,
        format!(
            "UPDATE tasks SET command = $4, task_type = $5, parameters = COALESCE($6, parameters),
                enabled = $7, revision = revision + 1, updated_at = $8
         WHERE tenant_id = $1 AND service_id = $2 AND id = $3
         RETURNING {}",
            Task::COLUMNS
        ),
    )
    .bind(id)
    .bind(command)
    .bind(task_type)
    .bind(parameters)
    .bind(enabled)
    .bind(now)
    .fetch_one(conn)
    .await
}

pub(super) async fn find(conn: &mut Conn, scope: &Scope, id: TaskId) -> Result<Option<Task>> {
    select(conn, scope, id, "").await
}

/// Finds it, and holds it until the transaction ends.
pub(super) async fn lock(conn: &mut Conn, scope: &Scope, id: TaskId) -> Result<Option<Task>> {
    let suffix = conn.for_update();
    select(conn, scope, id, suffix).await
}

async fn select(conn: &mut Conn, scope: &Scope, id: TaskId, suffix: &str) -> Result<Option<Task>> {
    scoped(
        scope,
        format!(
            "SELECT {} FROM tasks WHERE tenant_id = $1 AND service_id = $2 AND id = $3{suffix}",
            Task::COLUMNS
        ),
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

pub(super) async fn delete(conn: &mut Conn, scope: &Scope, id: TaskId) -> Result<()> {
    scoped(scope, "DELETE FROM tasks WHERE tenant_id = $1 AND service_id = $2 AND id = $3")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}
