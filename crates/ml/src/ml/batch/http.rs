//! `$batch-predict` and `$batch-train`: a file is stored and looked at while it comes, and answered with
//! the job that does what is in it.

use axum::Json;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use modelyard_flow::job::{Asking, AskingHeaders, AskingParams};
use modelyard_kernel::form::{Node, Query, Report};
use modelyard_kernel::{Caller, Failure, Kind, Result};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::intake::Refusal;
use super::model::{Operation, Options};
use super::split::{Broken, Format};
use crate::ml::{Ml, PREDICT, Submitted, TRAIN};

/// What both operations take.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents what `Options::read` takes")]
pub(super) struct BatchParams {
    /// What the file is written in: `csv`, `ndjson` or `json`; by `Content-Type` unless given.
    #[param(required = false)]
    format: Option<String>,
    /// Rows that are done at a time; 1000 unless given, 100000 at most. More in a large file, so that
    /// a batch has at most some thousand chunks.
    #[param(required = false)]
    chunk_rows: Option<i64>,
    /// A column, such as `location`: rows that have the same in it stay together. They must follow each
    /// other in the file.
    #[param(required = false)]
    group_by: Option<String>,
    /// What the result is written in: `csv` unless given, `ndjson`, or `parquet` where the server is built
    /// with it.
    #[param(required = false)]
    output: Option<String>,
    /// Chunks at a time; 2 unless given, 8 at most.
    #[param(required = false)]
    parallel: Option<i64>,
    /// The horizon, in periods.
    #[param(required = false)]
    prediction_periods: Option<i64>,
}

pub(in crate::ml) fn routes() -> OpenApiRouter<Ml> {
    // A file is streamed: its size is bounded while it comes, not before.
    OpenApiRouter::new()
        .routes(routes!(predict_in_batch))
        .routes(routes!(train_in_batch))
        .layer(DefaultBodyLimit::disable())
}

/// Predict for a file
///
/// The body is a file of any size: CSV, a JSON object on each line, a JSON list of objects, or a JSON
/// data frame. Rows that have a value in the service's target column are what is known, the others are
/// predicted for. Answers at once; follow the job, whose result is one artifact.
#[utoipa::path(post, path = "/api/v1/ml/$batch-predict", tag = "ml",
    params(("artifact_id" = String, Query, description = "a training artifact"),
        AskingHeaders, BatchParams, AskingParams),
    request_body(content(
        (String = "text/csv"),
        (String = "application/x-ndjson"),
        (Vec<Object> = "application/json")),
        description = "rows"),
    responses((status = 202, body = Submitted)))]
async fn predict_in_batch(
    State(ml): State<Ml>,
    caller: Caller,
    asking: Asking,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Submitted>)> {
    caller.permit(PREDICT)?;
    let options = read_options(raw.as_deref(), Operation::Predict)?;
    accept(ml, caller, asking, Operation::Predict, options, &headers, body).await
}

/// Train with a file
///
/// The body is a file of any size. Each line of NDJSON, and each element of a JSON list, is a whole body
/// of `$train`; with `group_by`, and for CSV, it is a table of which each group is a training. Each has
/// an artifact of its own. Answers at once; follow the job, whose result lists them.
#[utoipa::path(post, path = "/api/v1/ml/$batch-train", tag = "ml",
    params(("config_id" = Option<String>, Query, description = "the config of those that do not say their own, by the key or the column `config_id`"),
        AskingHeaders, BatchParams, AskingParams),
    request_body(content(
        (String = "text/csv"),
        (String = "application/x-ndjson"),
        (Vec<Object> = "application/json")),
        description = "rows, or bodies of `$train`"),
    responses((status = 202, body = Submitted)))]
async fn train_in_batch(
    State(ml): State<Ml>,
    caller: Caller,
    asking: Asking,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Submitted>)> {
    caller.permit(TRAIN)?;
    let options = read_options(raw.as_deref(), Operation::Train)?;
    accept(ml, caller, asking, Operation::Train, options, &headers, body).await
}

fn read_options(raw: Option<&str>, operation: Operation) -> Result<Options> {
    let query = Query::parse(raw);
    let form: Map<String, Value> =
        query.pairs().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let (form, report) = (Value::Object(form), Report::new());
    let options = Options::read(&Node::at(&["query"], &form, &report), operation);
    report.finish().map_err(Failure::violations)?;
    let options =
        options.ok_or_else(|| Failure::internal("a query was refused without a violation"))?;
    options.output.check()?;
    Ok(options)
}

async fn accept(
    ml: Ml,
    caller: Caller,
    asking: Asking,
    operation: Operation,
    options: Options,
    headers: &HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Submitted>)> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let format = options.format.or_else(|| media.and_then(Format::of)).ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "media_type_unsupported",
            "a batch is `text/csv`, `application/x-ndjson` or `application/json`; say which by \
             `Content-Type` or `?format=`",
        )
    })?;
    // Found out before the file is sent.
    ml.check_batch(&caller, &options).await?;
    let file = body.into_data_stream().map(|it| {
        it.map_err(|_| {
            Failure::bad_request("body_unreadable", "the file ended early, send it again")
        })
    });
    let taken = ml.take_in(operation, options, format, file.boxed()).await;
    let (batch, stored) = taken.map_err(unreadable)?;
    let fingerprint = serde_json::to_vec(&(&batch.options, batch.format, &batch.hash))?;
    let wishes = asking.wishes(operation.kind(), fingerprint.into()).await?;
    let submitted = ml.submit_batch(&caller, operation, batch, stored, wishes).await?;
    Ok((StatusCode::ACCEPTED, Json(submitted)))
}

fn unreadable(refusal: Refusal) -> Failure {
    let Broken(why) = match refusal {
        Refusal::Broken(broken) => broken,
        Refusal::Failure(failure) => return failure,
    };
    let report = Report::new();
    Node::at(&["body"], &Value::Null, &report).fail_rule(why);
    Failure::violations(report.finish().err().unwrap_or_default())
}
