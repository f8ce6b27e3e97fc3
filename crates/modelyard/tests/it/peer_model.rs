//! The model behind most of the recorded exchanges, as their README describes it, built with our
//! own builder.

use std::time::Duration;

use modelyard::{
    AssessedStatus, Diagnostic, Frame, Hierarchy, ModelError, ModelMetadata, PredictData, Service,
    ServiceBuilder, ServiceInfo, Severity, TrainData, functions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Peer config.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct PeerConfig {
    /// Number of lags
    #[schemars(range(min = 0, max = 24))]
    n_lags: usize,
    precision: f64,
    mode: Mode,
    sleep_s: f64,
    fail_train: bool,
    fail_predict: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Slow,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            n_lags: 3,
            precision: 0.01,
            mode: Mode::Fast,
            sleep_s: 0.0,
            fail_train: false,
            fail_predict: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Fitted {
    mean: f64,
    geo: bool,
}

/// The peer's service.
pub fn service() -> ServiceBuilder {
    Service::builder(info())
        .config::<PeerConfig>()
        .with_hierarchy(Hierarchy::new(
            "peer_hierarchy",
            &["ml_training_workspace", "ml_prediction"],
        ))
        .runner(
            functions(train, predict)
                .validate_train(validate_train)
                .validate_predict(validate_predict),
        )
}

fn info() -> ServiceInfo {
    ServiceInfo {
        version: "1.2.3".to_owned(),
        description: Some("Contract peer".to_owned()),
        model_metadata: ModelMetadata {
            author: Some("A. Author".to_owned()),
            author_note: Some("note".to_owned()),
            author_assessed_status: Some(AssessedStatus::Orange),
            contact_email: Some("a@example.com".parse().unwrap()),
            organization: Some("Org".to_owned()),
            organization_logo_url: Some("https://example.com/logo.png".parse().unwrap()),
            citation_info: Some("cite me".to_owned()),
            repository_url: Some("https://github.com/example/model".parse().unwrap()),
            documentation_url: Some("https://example.com/docs".parse().unwrap()),
        },
        min_prediction_periods: 1,
        max_prediction_periods: 12,
        allow_free_additional_continuous_covariates: true,
        required_covariates: vec!["rainfall".to_owned(), "mean_temperature".to_owned()],
        ..ServiceInfo::new("peer-model", "Peer Model")
    }
}

async fn train(config: PeerConfig, it: TrainData) -> Result<Fitted, ModelError> {
    tokio::time::sleep(Duration::from_secs_f64(config.sleep_s)).await;
    if config.fail_train {
        return Err(ModelError::of("ValueError", "train exploded on purpose"));
    }
    let column = it.data.column("disease_cases");
    let column =
        column.ok_or_else(|| ModelError::of("ValueError", "'disease_cases' is not in list"))?;
    let cases: Vec<f64> = it.data.data.iter().filter_map(|row| row[column].as_f64()).collect();
    let count = u32::try_from(cases.len())?.max(1);
    Ok(Fitted { mean: cases.iter().sum::<f64>() / f64::from(count), geo: it.geo.is_some() })
}

async fn predict(config: PeerConfig, fitted: Fitted, it: PredictData) -> Result<Frame, ModelError> {
    if config.fail_predict {
        return Err(ModelError::of("RuntimeError", "predict exploded on purpose"));
    }
    let mut predictions = it.future;
    predictions.columns.extend(["sample_0".to_owned(), "sample_1".to_owned()]);
    for row in &mut predictions.data {
        row.extend([fitted.mean.into(), (fitted.mean + 1.0).into()]);
    }
    Ok(predictions)
}

async fn validate_train(_: PeerConfig, it: TrainData) -> Result<Vec<Diagnostic>, ModelError> {
    let mut found = Vec::new();
    let rows = it.data.rows();
    if rows < 3 {
        let message = format!("need >= 3 rows, got {rows}");
        found.push(diagnostic(Severity::Error, "too_few_rows", message, Some("data")));
    }
    if it.geo.is_none() {
        found.push(diagnostic(Severity::Warning, "no_geo", "no geo supplied", None));
    }
    Ok(found)
}

async fn validate_predict(
    config: PeerConfig,
    it: PredictData,
) -> Result<Vec<Diagnostic>, ModelError> {
    let (rows, lags) = (it.historic.rows(), config.n_lags);
    Ok(vec![if rows < lags {
        let message = format!("historic has {rows} rows, need {lags}");
        diagnostic(Severity::Error, "n_lags_exceeds_context", message, Some("historic"))
    } else {
        diagnostic(Severity::Info, "ok", "looks fine", None)
    }])
}

fn diagnostic(
    severity: Severity,
    code: &str,
    message: impl Into<String>,
    field: Option<&str>,
) -> Diagnostic {
    Diagnostic {
        severity,
        code: code.to_owned(),
        message: message.into(),
        field: field.map(str::to_owned),
    }
}
