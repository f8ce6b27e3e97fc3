//! `/api/v1/tasks`. Takes requests apart, calls [`Tasks`], puts answers together.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, OriginalUri, Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use modelyard_flow::job::{Asking, AskingHeaders, AskingParams};
use modelyard_kernel::bulk::{Bulk, BulkIn, Outcomes};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, LargeBody, Result};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{NewExecution, NewTask, Submitted, Task, TaskFunction, TaskId, TaskType};
use super::{EXECUTE, Tasks, WRITE};
use crate::artifact::Access;
use crate::artifact::http::Stats;

/// What lists of tasks may be asked.
pub static FIELDS: Fields = Fields {
    table: "tasks",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("command", FieldKind::Text),
        Field::new("task_type", FieldKind::OneOf(TaskType::NAMES)),
        Field::new("enabled", FieldKind::Bool),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
    ],
    keys: &["id", "created_at", "updated_at", "command", "task_type", "parameters", "enabled"],
    search: &["command"],
    default_sort: ("id", Direction::Asc),
};

/// A new task, or one that replaces another.
#[derive(ToSchema)]
#[schema(example = json!({"command": "calculate_sum", "task_type": "python",
    "parameters": {"a": 10, "b": 32}}))]
#[expect(dead_code, reason = "documents what `NewTask::read` takes")]
struct TaskIn {
    /// Its id, to choose it; a new one unless given.
    #[schema(example = "01M7W2VW5SZCEB0G592J0SM0XC")]
    id: Option<String>,
    /// A shell command, or the name of a function.
    #[schema(example = "calculate_sum")]
    command: String,
    /// Which of the two; `shell` unless given.
    #[schema(value_type = TaskType, required = false)]
    task_type: Option<TaskType>,
    /// What the function gets. When a task is replaced and this is null or left out, the old ones
    /// stay.
    #[schema(value_type = Option<Object>, example = json!({"a": 10, "b": 32}))]
    parameters: Option<Map<String, Value>>,
    /// Whether it may be executed; true unless given.
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
}

/// How a task is to be executed this time.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `NewExecution::read` takes")]
struct ExecutionIn {
    /// Put over the parameters of the task, key by key.
    #[schema(value_type = Option<Object>, example = json!({"b": 33}))]
    parameters: Option<Map<String, Value>>,
}

pub(super) fn routes(tasks: Tasks, access: Access) -> OpenApiRouter {
    // Executing a task changes none.
    let mut routes = OpenApiRouter::new()
        .routes(routes!(get_task_schema))
        .routes(routes!(get_task_stats))
        .routes(routes!(list_task_functions))
        .routes(routes!(execute_task));
    if access == Access::Full {
        routes = routes
            .routes(routes!(list_tasks, create_task))
            .routes(routes!(change_tasks))
            .routes(routes!(get_task, update_task, delete_task));
    } else {
        routes = routes.routes(routes!(list_tasks)).routes(routes!(get_task));
    }
    routes.with_state(tasks)
}

/// List tasks
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks",
    params(("enabled" = Option<bool>, Query, description = "only tasks that are, or are not")),
    responses((status = 200, body = Vec<Task>)))]
async fn list_tasks(
    State(tasks): State<Tasks>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    // The contract reads it as it reads bodies, `yes` and `off` included, and answers 422.
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[("enabled", "enabled")])?;
    let listed = tasks.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create a task
#[utoipa::path(post, path = "/api/v1/tasks", tag = "tasks", request_body = TaskIn,
    responses((status = 201, body = Task)))]
async fn create_task(
    State(tasks): State<Tasks>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let new = body.read_values(NewTask::read).await?;
    let task = tasks.create(&caller, new).await?;
    reply::created(&Place::new(&headers, &uri), &task.id, &task.etag(), &task)
}

/// Change several tasks
///
/// Creates, updates and deletes, each with a result of its own, or all or nothing.
#[utoipa::path(post, path = "/api/v1/tasks/$bulk", tag = "tasks", request_body = BulkIn<TaskIn>,
    responses((status = 200, body = Outcomes)))]
async fn change_tasks(
    State(tasks): State<Tasks>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let bulk = body.read_values(|node| Bulk::read(node, NewTask::read)).await?;
    let changed = tasks.change(&caller, bulk).await?;
    Ok(Outcomes::new(changed, &uri).into_response())
}

/// The JSON schema of a task
#[utoipa::path(get, path = "/api/v1/tasks/$schema", tag = "tasks",
    responses((status = 200, body = Object)))]
async fn get_task_schema(caller: Caller, headers: HeaderMap) -> Result<Response> {
    caller.permit(super::READ)?;
    Ok(reply::document(&Conditions::of(&headers), include_str!("schema.json")))
}

/// Count tasks
#[utoipa::path(get, path = "/api/v1/tasks/$stats", tag = "tasks",
    responses((status = 200, body = Stats)))]
async fn get_task_stats(State(tasks): State<Tasks>, caller: Caller) -> Result<axum::Json<Stats>> {
    Ok(axum::Json(Stats { total: tasks.count(&caller).await? }))
}

/// List the functions of tasks
///
/// What the `command` of a task of the type `python` can name, with the JSON schemas of the parameters.
#[utoipa::path(get, path = "/api/v1/tasks/$functions", tag = "tasks",
    responses((status = 200, body = Vec<TaskFunction>)))]
async fn list_task_functions(
    State(tasks): State<Tasks>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    let functions = tasks.functions(&caller)?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&functions)?))
}

/// Get a task
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path)), responses((status = 200, body = Task)))]
async fn get_task(
    State(tasks): State<Tasks>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let task = tasks.get(&caller, TaskId::read(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &task.etag(), &task)
}

/// Replace a task
///
/// `parameters` stay as they are when they are null or left out; `task_type` and `enabled` become
/// `shell` and true.
#[utoipa::path(put, path = "/api/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path)), request_body = TaskIn,
    responses((status = 200, body = Task)))]
async fn update_task(
    State(tasks): State<Tasks>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let new = body.read_values(NewTask::read).await?;
    let conditions = Conditions::of(&headers);
    let task = tasks.update(&caller, TaskId::read(&id)?, new, &conditions).await?;
    reply::entity(&Conditions::default(), &task.etag(), &task)
}

/// Delete a task
///
/// Artifacts of its executions stay.
#[utoipa::path(delete, path = "/api/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path)), responses((status = 204)))]
async fn delete_task(
    State(tasks): State<Tasks>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let conditions = Conditions::of(&headers);
    tasks.delete(&caller, TaskId::read(&id)?, &conditions).await?;
    Ok(reply::nothing())
}

/// Execute a task
///
/// As a job, whose artifact has what the command printed or the function returned. The body may be
/// left out.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/$execute", tag = "tasks",
    params(
        ("id" = String, Path),
        AskingHeaders,
        AskingParams,
    ), request_body = Option<ExecutionIn>,
    responses((status = 202, body = Submitted)))]
async fn execute_task(
    State(tasks): State<Tasks>,
    caller: Caller,
    Path(id): Path<String>,
    asking: Asking,
    request: Request,
) -> Result<Response> {
    caller.permit(EXECUTE)?;
    let (id, what) = (TaskId::read(&id)?, format!("task.execute {id}"));
    let (execution, wishes) = if request.body().is_end_stream() {
        (NewExecution::default(), asking.wishes(&what, Bytes::new()).await?)
    } else {
        let body = LargeBody::from_request(request, &()).await?;
        let raw = body.raw();
        (body.read_values(NewExecution::read).await?, asking.wishes(&what, raw).await?)
    };
    let submitted = tasks.execute(&caller, id, execution, wishes).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(submitted)).into_response())
}
