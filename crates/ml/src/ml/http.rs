//! `/api/v1/ml`. Takes requests apart, calls [`Ml`], puts answers together.

use axum::Json;
use axum::extract::{RawQuery, State};
use http::StatusCode;
use modelyard_flow::job::{Asking, AskingHeaders, AskingParams};
use modelyard_kernel::background::compute;
use modelyard_kernel::form::{
    Bounds, Node, Query, Report, query_bool, query_int, query_one_of, shorten,
};
use modelyard_kernel::{Caller, Failure, LargeBody, Result};
use modelyard_run::config::ConfigId;
use modelyard_run::config::schema::ADDITIONAL_COVARIATES;
use modelyard_run::frame::{Frame, Frames};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{
    PredictRequest, Submitted, TrainRequest, ValidateRequest, Validation, require_rows,
};
use super::{Ml, PREDICT, READ, TRAIN};
use crate::info::PeriodType;
use crate::sample::{self, GeoShape, MAX_CELLS, Sample, SampleKind, SampleRequest};

/// What to train with.
#[derive(ToSchema)]
#[schema(example = json!({"config_id": "01M7W2GK0TW2TS583RRGA4PB56",
    "data": {"columns": ["time_period", "location", "rainfall", "disease_cases"],
        "data": [["2025-01", "north", 80.5, 12], ["2025-02", "north", 61.0, 9]]},
    "run_info": {"prediction_periods": 1}}))]
#[expect(dead_code, reason = "documents what `TrainRequest::read` takes")]
struct TrainIn {
    /// A config.
    #[schema(example = "01M7W2GK0TW2TS583RRGA4PB56")]
    config_id: String,
    /// What to learn from; at least one row.
    data: Frame,
    /// Where the locations are: a `GeoJSON` feature collection.
    #[schema(value_type = Option<Object>)]
    geo: Option<Value>,
    /// What the client knows of the run: `prediction_periods`, and more.
    #[schema(value_type = Option<Object>, example = json!({"prediction_periods": 3}))]
    run_info: Option<Value>,
}

/// What to predict with, and for.
#[derive(ToSchema)]
#[schema(example = json!({"artifact_id": "01M7W2GK1CC2HZY9FECP19MYJJ",
    "historic": {"columns": ["time_period", "location", "rainfall", "disease_cases"],
        "data": [["2025-01", "north", 80.5, 12], ["2025-02", "north", 61.0, 9]]},
    "future": {"columns": ["time_period", "location", "rainfall"],
        "data": [["2025-03", "north", 45.2]]}}))]
#[expect(dead_code, reason = "documents what `PredictRequest::read` takes")]
struct PredictIn {
    /// A training artifact.
    #[schema(example = "01M7W2GK1CC2HZY9FECP19MYJJ")]
    artifact_id: String,
    /// What is known; at least one row.
    historic: Frame,
    /// The rows to predict for; at least one.
    future: Frame,
    /// Where the locations are: a `GeoJSON` feature collection.
    #[schema(value_type = Option<Object>)]
    geo: Option<Value>,
    /// What the client knows of the run: `prediction_periods`, and more.
    #[schema(value_type = Option<Object>, example = json!({"prediction_periods": 3}))]
    run_info: Option<Value>,
}

/// Which request to look at.
#[derive(ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(dead_code, reason = "documents what `ValidateRequest::read` takes")]
enum ValidateIn {
    /// As in `$train`.
    Train(TrainIn),
    /// As in `$predict`.
    Predict(PredictIn),
}

pub(super) fn routes(ml: Ml) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(train_model))
        .routes(routes!(predict_with_model))
        .routes(routes!(validate_request))
        .routes(routes!(generate_sample_data))
        .merge(super::batch::http::routes())
        .with_state(ml)
}

/// Train
///
/// Answers at once; follow the job. The artifact exists when the job has completed, and when the
/// script failed: then it holds the script's output.
#[utoipa::path(post, path = "/api/v1/ml/$train", tag = "ml", request_body = TrainIn,
    params(AskingHeaders, AskingParams),
    responses((status = 202, body = Submitted)))]
async fn train_model(
    State(ml): State<Ml>,
    caller: Caller,
    asking: Asking,
    body: LargeBody,
) -> Result<(StatusCode, Json<Submitted>)> {
    caller.permit(TRAIN)?;
    let raw = body.raw();
    let request = read(body, read_train).await?;
    let wishes = asking.wishes("ml.train", raw).await?;
    Ok((StatusCode::ACCEPTED, Json(ml.train(&caller, request, wishes).await?)))
}

/// Predict
///
/// Answers at once; follow the job.
#[utoipa::path(post, path = "/api/v1/ml/$predict", tag = "ml", request_body = PredictIn,
    params(AskingHeaders, AskingParams),
    responses((status = 202, body = Submitted)))]
async fn predict_with_model(
    State(ml): State<Ml>,
    caller: Caller,
    asking: Asking,
    body: LargeBody,
) -> Result<(StatusCode, Json<Submitted>)> {
    caller.permit(PREDICT)?;
    let raw = body.raw();
    let request = read(body, read_predict).await?;
    let wishes = asking.wishes("ml.predict", raw).await?;
    Ok((StatusCode::ACCEPTED, Json(ml.predict(&caller, request, wishes).await?)))
}

/// Validate
///
/// A training or prediction request with `type: train` or `type: predict`; says what would be wrong
/// with it.
#[utoipa::path(post, path = "/api/v1/ml/$validate", tag = "ml", request_body = ValidateIn,
    responses((status = 200, body = Validation)))]
async fn validate_request(
    State(ml): State<Ml>,
    caller: Caller,
    body: LargeBody,
) -> Result<Json<Validation>> {
    caller.permit(READ)?;
    let request = read(body, ValidateRequest::read).await?;
    Ok(Json(ml.validate(&caller, request).await?))
}

/// The fields of requests that are frames.
const FRAMES: [&str; 3] = ["data", "historic", "future"];

/// Reads a request, of which `read` is given the frames where they could be had directly.
async fn read<T: Send + 'static>(
    body: LargeBody,
    read: fn(&Node<'_>, &mut Frames) -> Option<T>,
) -> Result<T> {
    let direct = move |body: &[u8], most_values| read_direct(body, most_values, read);
    body.read(direct, move |node| read(&node, &mut Frames::default())).await
}

fn read_direct<T>(
    body: &[u8],
    most_values: usize,
    read: fn(&Node<'_>, &mut Frames) -> Option<T>,
) -> Result<T, String> {
    let (mut frames, rest) =
        Frames::split(body, &FRAMES, most_values).map_err(|error| error.to_string())?;
    let report = Report::new();
    let request = read(&Node::body(&rest, &report), &mut frames);
    if let Err(violations) = report.finish() {
        return Err(violations.into_iter().map(|it| it.msg).next().unwrap_or_default());
    }
    request.ok_or_else(|| "a frame has no rows".to_owned())
}

pub(super) fn read_train(node: &Node<'_>, frames: &mut Frames) -> Option<TrainRequest> {
    let it = TrainRequest::read(node, frames)?;
    require_rows(node, "data", &it.data).then_some(it)
}

pub(super) fn read_predict(node: &Node<'_>, frames: &mut Frames) -> Option<PredictRequest> {
    let it = PredictRequest::read(node, frames)?;
    let historic = require_rows(node, "historic", &it.historic);
    let future = require_rows(node, "future", &it.future);
    (historic && future).then_some(it)
}

/// Generate sample data
///
/// A body for `$train` or `$predict` to try the service with. The numbers are made up.
#[utoipa::path(get, path = "/api/v1/ml/$generate-sample-data", tag = "ml",
    params(
        ("kind" = Option<String>, Query, description = "`train` or `predict`"),
        ("config_id" = Option<String>, Query, description = "whose covariates to add"),
        ("num_locations" = Option<i64>, Query, description = "5 unless given"),
        ("num_periods" = Option<i64>, Query, description = "50 unless given"),
        ("num_features" = Option<i64>, Query, description = "3 unless given"),
        ("period_type" = Option<String>, Query, description = "`monthly` or `weekly`"),
        ("geo_type" = Option<String>, Query, description = "`polygon` or `point`"),
        ("include_geo" = Option<bool>, Query, description = "whether to add geometries"),
        ("seed" = Option<i64>, Query, description = "the same numbers again when it is not negative"),
    ),
    responses((status = 200, body = Object)))]
async fn generate_sample_data(
    State(ml): State<Ml>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Json<Sample>> {
    caller.permit(READ)?;
    let mut request = read_sample(&ml, raw.as_deref())?;
    if let Some(text) = request.config_id.clone() {
        let id = modelyard_kernel::Ulid::read(&text).map(ConfigId).ok_or_else(|| {
            let detail = format!("Invalid config_id: '{}'", shorten(&text));
            Failure::bad_request("config_id_invalid", detail)
        })?;
        let config = ml.0.configs.get(&caller, id).await?;
        let covariates = config.values().remove(ADDITIONAL_COVARIATES);
        request.config_covariates =
            covariates.and_then(|it| serde_json::from_value(it).ok()).unwrap_or_default();
        request.config_id = Some(id.to_string());
    }
    let checked = compute(move || (request.cells() <= MAX_CELLS).then_some(request)).await?;
    let request = checked.ok_or_else(|| {
        Failure::bad_request(
            "sample_too_large",
            format!(
                "a sample has at most {MAX_CELLS} cells; ask for fewer locations, periods or \
                 features, or for a config with fewer covariates"
            ),
        )
    })?;
    // A million cells take a moment.
    Ok(Json(compute(move || sample::generate(&request)).await?))
}

fn read_sample(ml: &Ml, raw: Option<&str>) -> Result<SampleRequest> {
    let query = Query::parse(raw);
    let report = Report::new();
    let number = |name, default: u32, max: u32| {
        let bounds = Bounds::none().at_least(0).at_most(max);
        let it = query_int(&report, name, query.get(name), &bounds);
        it.and_then(|it| u32::try_from(it).ok()).unwrap_or(default)
    };
    let one_of = |name, words: &[&'static str]| query_one_of(&report, name, query.get(name), words);
    let info = ml.info();
    let kind = one_of("kind", &["train", "predict"]);
    let period = one_of("period_type", &["monthly", "weekly"]);
    let shape = one_of("geo_type", &["polygon", "point"]);
    let geo = query_bool(&report, "include_geo", query.get("include_geo"));
    let seed = query_int(&report, "seed", query.get("seed"), &Bounds::none()).unwrap_or(-1);
    let request = SampleRequest {
        kind: if kind == Some("predict") { SampleKind::Predict } else { SampleKind::Train },
        locations: number("num_locations", 5, sample::MAX_LOCATIONS).max(1),
        periods: number("num_periods", 50, sample::MAX_PERIODS).max(1),
        features: number("num_features", 3, sample::MAX_FEATURES),
        period_type: match period {
            Some("weekly") => PeriodType::Weekly,
            Some(_) => PeriodType::Monthly,
            None => info.period_type,
        },
        geo: geo.unwrap_or(info.requires_geo).then_some(match shape {
            Some("point") => GeoShape::Point,
            _ => GeoShape::Polygon,
        }),
        seed: u64::try_from(seed).unwrap_or_else(|_| ml.0.clock.now().micros().unsigned_abs()),
        required_covariates: info.required_covariates.clone(),
        config_covariates: Vec::new(),
        horizon: (info.min_prediction_periods, info.max_prediction_periods),
        config_id: query.get("config_id").map(ToOwned::to_owned),
    };
    report.finish().map_err(Failure::violations)?;
    Ok(request)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
