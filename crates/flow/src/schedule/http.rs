//! `/api/v1/schedules`. Takes requests apart, calls [`Schedules`], puts answers together.

use axum::body::Bytes;
use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use modelyard_kernel::bulk::{Bulk, BulkIn, Outcomes};
use modelyard_kernel::form::{Bounds, Node, Query, Report, query_int};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions, Place};
use modelyard_kernel::{Caller, Failure, LargeBody, Result};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Begun, Misfire, NewSchedule, Overlap, Run, Schedule, ScheduleId, Upcoming};
use super::{READ, Schedules, WRITE};
use crate::job::{Asking, AskingHeaders, AskingParams};

/// What lists of schedules may be asked. Text is looked for in the kinds of their targets as well.
pub static FIELDS: Fields = Fields {
    table: "schedules",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("name", FieldKind::Text),
        Field::new("enabled", FieldKind::Bool),
        Field::new("misfire", FieldKind::OneOf(Misfire::NAMES)),
        Field::new("overlap", FieldKind::OneOf(Overlap::NAMES)),
        Field::new("created_at", FieldKind::Time),
        Field::new("updated_at", FieldKind::Time),
        Field::unsortable("next_at", FieldKind::Time),
        Field::unsortable("last_at", FieldKind::Time),
    ],
    keys: &[
        "id",
        "created_at",
        "updated_at",
        "name",
        "enabled",
        "trigger",
        "target",
        "misfire",
        "overlap",
        "jitter_seconds",
        "next_at",
        "last_at",
    ],
    search: &["name", "kind"],
    default_sort: ("id", Direction::Asc),
};

/// The most times that `$next` tells.
const MAX_UPCOMING: i64 = 100;

/// A new schedule, or one that replaces another.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Train every morning",
    "trigger": {"type": "cron", "expression": "0 6 * * MON-FRI", "time_zone": "Europe/Berlin"},
    "target": {"kind": "task.execute", "input": {"task_id": "01M7W2VW5SZCEB0G592J0SM0XC"}}}))]
#[expect(dead_code, reason = "documents what `NewSchedule::read` takes")]
struct ScheduleIn {
    /// Its id, to choose it; a new one unless given.
    #[schema(example = "01M7W2VW5SZCEB0G592J0SM0XC")]
    id: Option<String>,
    /// What it is called, and its jobs: one line.
    #[schema(min_length = 1, max_length = 200, example = "Train every morning")]
    name: String,
    /// False to begin with a paused one; true unless given.
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
    /// When it is to fire.
    trigger: TriggerIn,
    /// What it begins.
    target: TargetIn,
    /// What becomes of ticks that nobody was there to begin; `once` unless given.
    #[schema(value_type = Misfire, required = false)]
    misfire: Option<Misfire>,
    /// What becomes of a tick while an earlier job has not ended; `skip` unless given.
    #[schema(value_type = Overlap, required = false)]
    overlap: Option<Overlap>,
    /// Up to how many seconds after its time a job is begun; 0 unless given. Shorter than the
    /// interval, if it is one.
    #[schema(value_type = i64, required = false, minimum = 0, maximum = 86400)]
    jitter_seconds: Option<i64>,
}

/// When it is to fire.
#[derive(ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "documents what `NewSchedule::read` takes")]
enum TriggerIn {
    /// At the times of a cron expression.
    Cron {
        /// Minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`,
        /// `@monthly`, `@yearly`.
        #[schema(example = "0 6 * * MON-FRI")]
        expression: String,
        /// Whose clocks are meant; `UTC` unless given.
        #[schema(example = "Europe/Berlin")]
        time_zone: Option<String>,
    },
    /// Every so many seconds.
    Interval {
        /// Seconds from one to the next.
        #[schema(minimum = 1, maximum = 31622400, example = 3600)]
        every_seconds: i64,
        /// One of its times; when the schedule is made unless given.
        #[schema(example = "2026-11-23T06:00:00Z")]
        anchor: Option<String>,
    },
}

/// What it begins.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `NewSchedule::read` takes")]
struct TargetIn {
    /// The kind of job, such as `task.execute` or `ml.train`.
    #[schema(example = "task.execute")]
    kind: String,
    /// What the job gets, as it is sent to the operation that begins one; `{}` unless given.
    #[schema(value_type = Option<Object>,
        example = json!({"task_id": "01M7W2VW5SZCEB0G592J0SM0XC"}))]
    input: Option<Value>,
}

pub(super) fn routes(schedules: Schedules) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_schedules, create_schedule))
        .routes(routes!(change_schedules))
        .routes(routes!(get_schedule_schema))
        .routes(routes!(get_schedule, update_schedule, delete_schedule))
        .routes(routes!(run_schedule))
        .routes(routes!(pause_schedule))
        .routes(routes!(resume_schedule))
        .routes(routes!(list_schedule_history))
        .routes(routes!(preview_schedule))
        .with_state(schedules)
}

/// List schedules
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules",
    responses((status = 200, body = Vec<Schedule>)))]
async fn list_schedules(
    State(schedules): State<Schedules>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[])?;
    let listed = schedules.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Create a schedule
#[utoipa::path(post, path = "/api/v1/schedules", tag = "schedules", request_body = ScheduleIn,
    responses((status = 201, body = Schedule)))]
async fn create_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let kinds = schedules.kinds();
    let new = body.read_values(move |node| NewSchedule::read(node, &kinds)).await?;
    let schedule = schedules.create(&caller, new).await?;
    reply::created(&Place::new(&headers, &uri), &schedule.id, &schedule.etag(), &schedule)
}

/// Change several schedules
///
/// Creates, updates and deletes, each with a result of its own, or all or nothing.
#[utoipa::path(post, path = "/api/v1/schedules/$bulk", tag = "schedules",
    request_body = BulkIn<ScheduleIn>, responses((status = 200, body = Outcomes)))]
async fn change_schedules(
    State(schedules): State<Schedules>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let kinds = schedules.kinds();
    let read = move |node: Node<'_>| Bulk::read(node, |it| NewSchedule::read(it, &kinds));
    let changed = schedules.change(&caller, body.read_values(read).await?).await?;
    Ok(Outcomes::new(changed, &uri).into_response())
}

/// The JSON schema of a schedule
#[utoipa::path(get, path = "/api/v1/schedules/$schema", tag = "schedules",
    responses((status = 200, body = Object)))]
async fn get_schedule_schema(caller: Caller, headers: HeaderMap) -> Result<Response> {
    caller.permit(READ)?;
    Ok(reply::document(&Conditions::of(&headers), include_str!("schema.json")))
}

/// Get a schedule
#[utoipa::path(get, path = "/api/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path)), responses((status = 200, body = Schedule)))]
async fn get_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let schedule = schedules.get(&caller, ScheduleId::read(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &schedule.etag(), &schedule)
}

/// Replace a schedule
///
/// What is left out becomes what it is in a new one, but the anchor of an interval stays.
#[utoipa::path(put, path = "/api/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path)), request_body = ScheduleIn,
    responses((status = 200, body = Schedule)))]
async fn update_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: LargeBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let kinds = schedules.kinds();
    let new = body.read_values(move |node| NewSchedule::read(node, &kinds)).await?;
    let conditions = of_revision(&headers);
    let schedule = schedules.update(&caller, ScheduleId::read(&id)?, new, &conditions).await?;
    reply::entity(&Conditions::default(), &schedule.etag(), &schedule)
}

/// Delete a schedule
///
/// And its history. Jobs that it has begun go on.
#[utoipa::path(delete, path = "/api/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path)), responses((status = 204)))]
async fn delete_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let conditions = of_revision(&headers);
    schedules.delete(&caller, ScheduleId::read(&id)?, &conditions).await?;
    Ok(reply::nothing())
}

/// Run a schedule now
///
/// Begins its job at once, also while it is paused. Its next time stays as it is.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/$run-now", tag = "schedules",
    params(("id" = String, Path), AskingHeaders, AskingParams),
    responses((status = 202, body = Begun)))]
async fn run_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    asking: Asking,
) -> Result<Response> {
    let id = ScheduleId::read(&id)?;
    let wishes = asking.wishes(&format!("schedule.run {id}"), Bytes::new()).await?;
    let begun = schedules.run_now(&caller, id, wishes).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(begun)).into_response())
}

/// Pause a schedule
#[utoipa::path(post, path = "/api/v1/schedules/{id}/$pause", tag = "schedules",
    params(("id" = String, Path)), responses((status = 200, body = Schedule)))]
async fn pause_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    enable(&schedules, &caller, &id, false, &headers).await
}

/// Resume a schedule
///
/// What would have fired while it was paused does not.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/$resume", tag = "schedules",
    params(("id" = String, Path)), responses((status = 200, body = Schedule)))]
async fn resume_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    enable(&schedules, &caller, &id, true, &headers).await
}

async fn enable(
    schedules: &Schedules,
    caller: &Caller,
    id: &str,
    enabled: bool,
    headers: &HeaderMap,
) -> Result<Response> {
    let conditions = of_revision(headers);
    let schedule = schedules.enable(caller, ScheduleId::read(id)?, enabled, &conditions).await?;
    reply::entity(&Conditions::default(), &schedule.etag(), &schedule)
}

/// The history of a schedule
///
/// What became of its newest hundred ticks, newest first, and of one whose job still runs.
#[utoipa::path(get, path = "/api/v1/schedules/{id}/$history", tag = "schedules",
    params(("id" = String, Path)), responses((status = 200, body = Vec<Run>)))]
async fn list_schedule_history(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let runs = schedules.history(&caller, ScheduleId::read(&id)?).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&runs)?))
}

/// The next times of a schedule
///
/// As its trigger names them, whether it is paused or not, and without jitter.
#[utoipa::path(get, path = "/api/v1/schedules/{id}/$next", tag = "schedules",
    params(
        ("id" = String, Path),
        ("count" = Option<i64>, Query, description = "how many, at most 100; 5 unless given"),
    ),
    responses((status = 200, body = Vec<Upcoming>)))]
async fn preview_schedule(
    State(schedules): State<Schedules>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Result<axum::Json<Vec<Upcoming>>> {
    let count = read_count(raw.as_deref())?;
    Ok(axum::Json(schedules.upcoming(&caller, ScheduleId::read(&id)?, count).await?))
}

/// The conditions of a change, of whose tags only the revision counts: what is behind `~` changes
/// whenever the schedule fires.
fn of_revision(headers: &HeaderMap) -> Conditions {
    let mut of_revision = HeaderMap::new();
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        for value in headers.get_all(&name) {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let cut = |tag: &str| match tag.split_once('~') {
                Some((revision, _)) => format!("{revision}\""),
                None => tag.to_owned(),
            };
            let tags: Vec<String> = text.split(',').map(cut).collect();
            // What cannot be sent again names nothing, as it did before.
            let tags = HeaderValue::from_str(&tags.join(",")).unwrap_or(value.clone());
            of_revision.append(&name, tags);
        }
    }
    Conditions::of(&of_revision)
}

fn read_count(raw: Option<&str>) -> Result<usize> {
    let report = Report::new();
    let bounds = Bounds::none().at_least(1).at_most(MAX_UPCOMING);
    let count = query_int(&report, "count", Query::parse(raw).get("count"), &bounds);
    report.finish().map_err(Failure::violations)?;
    Ok(count.and_then(|it| usize::try_from(it).ok()).unwrap_or(5))
}
