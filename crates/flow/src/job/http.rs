//! `/api/v1/jobs`. Takes requests apart, calls [`Jobs`], puts answers together.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::HeaderMap;
use modelyard_kernel::bulk::{Bulk, Outcomes};
use modelyard_kernel::form::{Node, shorten};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery};
use modelyard_kernel::reply::{self, Conditions};
use modelyard_kernel::{Caller, Failure, JsonBody, Kind, Result, Ulid};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Job, JobId, JobStatus, Jobs, WRITE};

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
    ],
    search: &["kind", "error"],
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
/// Server-sent events: the record every `poll_interval` seconds, until it has ended.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}/$stream", tag = "jobs",
    params(
        ("job_id" = String, Path),
        ("poll_interval" = Option<f64>, Query, description = "seconds between events, above 0 and at most 60; 0.5 unless given"),
    ),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn stream_job(
    State(jobs): State<Jobs>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Result<Response> {
    let interval = reply::poll_interval(raw.as_deref(), 0.5)?;
    let id = read_id(&id)?;
    jobs.get(&caller, id).await?;
    let events = stream::unfold(Some(false), move |before| {
        let (jobs, caller) = (jobs.clone(), caller.clone());
        async move {
            if before? {
                let stopping = jobs.0.background.stopping().clone();
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = stopping.cancelled() => return None,
                }
            }
            let (event, more) = match jobs.get(&caller, id).await {
                Ok(job) => (serde_json::to_string(&job).ok()?, !job.status.is_final()),
                Err(it) if it.kind() == Kind::Missing => {
                    (r#"{"status": "deleted"}"#.to_owned(), false)
                }
                // The database may be back at the next look.
                Err(_) => return Some((Ok::<_, Infallible>(": retry\n\n".to_owned()), Some(true))),
            };
            Some((Ok(format!("data: {event}\n\n")), more.then_some(true)))
        }
    });
    Ok(reply::event_stream(Body::from_stream(events)))
}

fn read_id(text: &str) -> Result<JobId> {
    Ulid::read(text).map(JobId).ok_or_else(|| {
        let detail = format!("Invalid job ID format: {}", shorten(text));
        Failure::new(Kind::Invalid, "invalid_ulid", detail)
    })
}
