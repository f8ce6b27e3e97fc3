//! `/api/v1/jobs`. Takes requests apart, calls [`Jobs`], puts answers together.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use modelyard_kernel::bulk::{Bulk, Outcomes};
use modelyard_kernel::form::{Bounds, Node, Query, Report, query_bool, query_int, shorten};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions};
use modelyard_kernel::{Caller, Failure, JsonBody, Kind, Result, Ulid};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, AskingHeaders, AskingParams, read_queue};
use super::stream::{self, Wish};
use super::{Job, JobId, JobStatus, Jobs, LogLine, Queue, Step, WRITE};

/// What lists of jobs may be asked.
pub static FIELDS: Fields = Fields {
    table: "jobs",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("kind", FieldKind::Text),
        Field::new("status", FieldKind::OneOf(JobStatus::NAMES)),
        Field::new("submitted_at", FieldKind::Time),
        Field::unsortable("started_at", FieldKind::Time),
        Field::unsortable("finished_at", FieldKind::Time),
        Field::unsortable("artifact_id", FieldKind::Id),
        Field::new("queue", FieldKind::Text),
        Field::new("priority", FieldKind::Int),
        Field::new("attempt", FieldKind::Int),
        Field::new("dead_letter", FieldKind::Bool),
        Field::unsortable("label", FieldKind::Text),
        Field::unsortable("owner", FieldKind::Text),
        Field::unsortable("run_at", FieldKind::Time),
        Field::unsortable("deadline_at", FieldKind::Time),
    ],
    keys: &[
        "id",
        "status",
        "submitted_at",
        "started_at",
        "finished_at",
        "error",
        "error_traceback",
        "artifact_id",
        "kind",
        "label",
        "queue",
        "priority",
        "attempt",
        "max_attempts",
        "run_at",
        "deadline_at",
        "owner",
        "retry_of",
        "dead_letter",
        "progress",
        "log_tail",
        "timing",
    ],
    search: &["kind", "label", "error"],
    default_sort: ("submitted_at", Direction::Desc),
};

/// Several jobs to cancel and remove.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents what `change_jobs` takes")]
struct JobsBulkIn {
    /// All or nothing; false unless given.
    #[schema(default = false)]
    atomic: Option<bool>,
    /// Done one after the other, in this order.
    #[schema(max_items = 1000)]
    operations: Vec<JobOperationIn>,
}

/// One of them.
#[derive(ToSchema)]
#[serde(tag = "op", rename_all = "lowercase")]
#[expect(dead_code, reason = "documents what `change_jobs` takes")]
enum JobOperationIn {
    /// A job cancelled and removed.
    Delete {
        /// Which one.
        #[schema(example = "01M7W2GK1CC2HZY9FECP19MYJK")]
        id: String,
    },
}

pub(super) fn routes(jobs: Jobs) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(change_jobs))
        .routes(routes!(get_job_schema))
        .routes(routes!(get_job, delete_job))
        .routes(routes!(stream_job))
        .routes(routes!(cancel_job))
        .routes(routes!(get_job_steps))
        .routes(routes!(get_job_logs))
        .routes(routes!(list_dead_letters))
        .routes(routes!(retry_job))
        .routes(routes!(discard_job))
        .routes(routes!(list_queues))
        .routes(routes!(pause_queue))
        .routes(routes!(resume_queue))
        .with_state(jobs)
}

/// List jobs
///
/// Newest first. `status_filter` is the contract's name for `status`.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs",
    params(("status_filter" = Option<JobStatus>, Query, description = "only jobs in this state")),
    responses((status = 200, body = Vec<Job>)))]
async fn list_jobs(
    State(jobs): State<Jobs>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = ListQuery::read(raw.as_deref(), &FIELDS, &[("status_filter", "status")])?;
    let listed = jobs.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// Cancel and remove several jobs
///
/// Each with a result of its own, or all or nothing. Jobs come of training, prediction and tasks, so
/// `delete` is the only operation.
#[utoipa::path(post, path = "/api/v1/jobs/$bulk", tag = "jobs", request_body = JobsBulkIn,
    responses((status = 200, body = Outcomes)))]
async fn change_jobs(
    State(jobs): State<Jobs>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    body: JsonBody,
) -> Result<Response> {
    caller.permit(WRITE)?;
    let refuse = |node: Node<'_>| -> Option<Infallible> {
        node.fail("value_error", "Jobs can only be deleted", None);
        None
    };
    let bulk = body.read(|node| Bulk::read(node, refuse))?;
    let changed = jobs.change(&caller, bulk).await?;
    Ok(Outcomes::new(changed, &uri).into_response())
}

/// The JSON schema of a list of jobs
#[utoipa::path(get, path = "/api/v1/jobs/$schema", tag = "jobs",
    responses((status = 200, body = Object)))]
async fn get_job_schema(caller: Caller, headers: HeaderMap) -> Result<Response> {
    caller.permit(super::READ)?;
    Ok(reply::document(&Conditions::of(&headers), include_str!("schema.json")))
}

/// Get a job
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}", tag = "jobs",
    params(("job_id" = String, Path)), responses((status = 200, body = Job)))]
async fn get_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let job = jobs.get(&caller, read_id(&id)?).await?;
    reply::entity(&Conditions::of(&headers), &job.etag(), &job)
}

/// Cancel and remove a job
///
/// A running job is cancelled and its processes are ended before the answer.
#[utoipa::path(delete, path = "/api/v1/jobs/{job_id}", tag = "jobs",
    params(("job_id" = String, Path)), responses((status = 204)))]
async fn delete_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    jobs.delete(&caller, read_id(&id)?, &Conditions::of(&headers)).await?;
    Ok(reply::nothing())
}

/// Follow a job
///
/// Server-sent events: the record every `poll_interval` seconds, until it has ended. With `logs=true`
/// the lines that the job prints are events named `log`; a client that comes back with
/// `Last-Event-ID` is given those that it has not seen.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}/$stream", tag = "jobs",
    params(
        ("job_id" = String, Path),
        ("poll_interval" = Option<f64>, Query, description = "seconds between events, above 0 and at most 60; 0.5 unless given"),
        ("logs" = Option<bool>, Query, description = "whether lines are sent as well; false unless given"),
        ("Last-Event-ID" = Option<String>, Header, description = "the number of the last line that was seen"),
    ),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn stream_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let interval = reply::poll_interval(raw.as_deref(), 0.5)?;
    let report = Report::new();
    let logs = query_bool(&report, "logs", Query::parse(raw.as_deref()).get("logs"));
    report.finish().map_err(Failure::violations)?;
    let id = read_id(&id)?;
    jobs.get(&caller, id).await?;
    let seen = headers.get("last-event-id").and_then(|it| it.to_str().ok()?.trim().parse().ok());
    let lines_after = logs.unwrap_or(false).then(|| seen.unwrap_or(0_i64).max(0));
    let events = stream::follow(jobs, caller, id, Wish { interval, lines_after });
    Ok(reply::event_stream(Body::from_stream(events)))
}

/// Cancel a job
///
/// Its state is `canceled` at once, and its record stays; its processes are ended within two seconds.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/$cancel", tag = "jobs",
    params(("job_id" = String, Path)), responses((status = 200, body = Job)))]
async fn cancel_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Job>> {
    Ok(Json(jobs.cancel(&caller, read_id(&id)?, &Conditions::of(&headers)).await?))
}

/// The steps of a job
///
/// Those that it has done, in the order in which it did them. Each was done once, whatever happened
/// in between.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}/$steps", tag = "jobs",
    params(("job_id" = String, Path)), responses((status = 200, body = Vec<Step>)))]
async fn get_job_steps(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let steps = jobs.steps(&caller, read_id(&id)?).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&steps)?))
}

/// Lines that are given at most, and unless fewer are asked for.
const MAX_LINES: i64 = 1000;

/// The log of a job
///
/// What it printed, line by line; `after` is the number of the last line that is known.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}/$logs", tag = "jobs",
    params(
        ("job_id" = String, Path),
        ("after" = Option<i64>, Query, description = "0 unless given"),
        ("limit" = Option<i64>, Query, description = "1000 at most, and unless given"),
    ),
    responses((status = 200, body = Vec<LogLine>)))]
async fn get_job_logs(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let query = Query::parse(raw.as_deref());
    let report = Report::new();
    let bounds = Bounds::none().at_least(0);
    let after = query_int(&report, "after", query.get("after"), &bounds);
    let bounds = Bounds::none().at_least(1).at_most(MAX_LINES);
    let most = query_int(&report, "limit", query.get("limit"), &bounds);
    report.finish().map_err(Failure::violations)?;
    let (after, most) = (after.unwrap_or(0), most.unwrap_or(MAX_LINES));
    let lines = jobs.lines(&caller, read_id(&id)?, after, most).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&lines)?))
}

/// List dead letters
///
/// Jobs that failed, whose input is kept so that they can be tried again. Newest first.
#[utoipa::path(get, path = "/api/v1/jobs/$dead-letters", tag = "jobs",
    responses((status = 200, body = Vec<Job>)))]
async fn list_dead_letters(
    State(jobs): State<Jobs>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let raw = match raw.as_deref() {
        None | Some("") => "dead_letter=true".to_owned(),
        Some(raw) => format!("{raw}&dead_letter=true"),
    };
    let query = ListQuery::read(Some(&raw), &FIELDS, &[("status_filter", "status")])?;
    let listed = jobs.list(&caller, &query).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), listed.to_json(&query)?))
}

/// 202 of `$retry`.
#[derive(Debug, Serialize, ToSchema)]
struct Retried {
    /// The new job.
    #[schema(value_type = String, example = "01M7W2GK1CC2HZY9FECP19MYJK")]
    job_id: JobId,
    /// The id that its result will have.
    #[schema(value_type = Option<String>)]
    artifact_id: Option<Ulid>,
    /// The same in words.
    message: String,
}

/// Retry a dead letter
///
/// Makes a new job of what the failed one was asked to do. The old record stays.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/$retry", tag = "jobs",
    params(
        ("job_id" = String, Path),
        AskingHeaders,
        AskingParams,
    ), responses((status = 202, body = Retried)))]
async fn retry_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    asking: Asking,
) -> Result<(StatusCode, Json<Retried>)> {
    let id = read_id(&id)?;
    let wishes = asking.wishes(&format!("job.retry {id}"), Bytes::new()).await?;
    let submitted = jobs.retry(&caller, id, wishes).await?;
    let (job_id, artifact_id) = (submitted.job, submitted.artifact);
    let message = format!("Job {id} is tried again. Job ID: {job_id}");
    Ok((StatusCode::ACCEPTED, Json(Retried { job_id, artifact_id, message })))
}

/// Discard a dead letter
///
/// It is not offered for a retry any more, and its input is removed; the record stays.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/$discard", tag = "jobs",
    params(("job_id" = String, Path)), responses((status = 204)))]
async fn discard_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    jobs.discard(&caller, read_id(&id)?).await?;
    Ok(reply::nothing())
}

/// List queues
///
/// With how many jobs of each wait and run.
#[utoipa::path(get, path = "/api/v1/queues", tag = "jobs",
    responses((status = 200, body = Vec<Queue>)))]
async fn list_queues(
    State(jobs): State<Jobs>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response> {
    let queues = jobs.queues(&caller).await?;
    Ok(reply::json_bytes(&Conditions::of(&headers), serde_json::to_vec(&queues)?))
}

/// Pause a queue
///
/// No more jobs of it are begun until it is resumed; what runs goes on.
#[utoipa::path(post, path = "/api/v1/queues/{queue}/$pause", tag = "jobs",
    params(("queue" = String, Path)), responses((status = 204)))]
async fn pause_queue(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(queue): Path<String>,
) -> Result<Response> {
    caller.permit(WRITE)?;
    jobs.pause(&caller, &read_queue(queue)?).await?;
    Ok(reply::nothing())
}

/// Resume a queue
///
/// Jobs of it are begun again.
#[utoipa::path(post, path = "/api/v1/queues/{queue}/$resume", tag = "jobs",
    params(("queue" = String, Path)), responses((status = 204)))]
async fn resume_queue(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(queue): Path<String>,
) -> Result<Response> {
    caller.permit(WRITE)?;
    jobs.resume(&caller, &read_queue(queue)?).await?;
    Ok(reply::nothing())
}

fn read_id(text: &str) -> Result<JobId> {
    Ulid::read(text).map(JobId).ok_or_else(|| {
        let detail = format!("Invalid job ID format: {}", shorten(text));
        Failure::new(Kind::Invalid, "invalid_ulid", detail)
    })
}
