//! Our side of `cargo xtask bench serve`: the same model as `xtask/bench/peer_service.py`, which
//! costs next to nothing, so that the service is measured and not the model.
//!
//! Takes its settings from the environment, as every service does: `PORT`, `MODELYARD_DATA__DIR`.

use std::error::Error;
use std::time::{Duration, Instant};

use modelyard::{Frame, ModelError, PredictData, Service, ServiceInfo, TrainData, functions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut info = ServiceInfo::new("bench-model", "Bench Model");
    info.description = Some("The mean of the disease cases".to_owned());
    info.max_prediction_periods = 100;
    info.allow_free_additional_continuous_covariates = true;
    info.required_covariates =
        ["population", "rainfall", "mean_temperature"].map(str::to_owned).into();
    Service::builder(info)
        .config::<BenchConfig>()
        .runner(functions(train, predict))
        .serve()
        .await?;
    Ok(())
}

/// Bench config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
struct BenchConfig {
    prediction_periods: u32,
    n_lags: u32,
    precision: f64,
    mode: String,
    /// How long training computes, for `cargo xtask bench jobs`.
    compute_seconds: f64,
}

impl Default for BenchConfig {
    fn default() -> Self {
        BenchConfig {
            prediction_periods: 3,
            n_lags: 3,
            precision: 0.01,
            mode: "fast".to_owned(),
            compute_seconds: 0.0,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Mean {
    mean: f64,
}

async fn train(config: BenchConfig, input: TrainData) -> Result<Mean, ModelError> {
    let (began, time) = (Instant::now(), Duration::from_secs_f64(config.compute_seconds));
    while began.elapsed() < time {
        std::hint::black_box((0..1000_u64).sum::<u64>());
    }
    let column = input.data.column("disease_cases").ok_or_else(|| {
        ModelError::of("ValueError", "the data has no column `disease_cases`".to_owned())
    })?;
    let cases: Vec<f64> = input.data.data.iter().filter_map(|row| row[column].as_f64()).collect();
    let count = if cases.is_empty() { 1.0 } else { cases.len() as f64 };
    Ok(Mean { mean: cases.iter().sum::<f64>() / count })
}

async fn predict(_: BenchConfig, model: Mean, input: PredictData) -> Result<Frame, ModelError> {
    let mut frame = input.future;
    frame.columns.extend(["sample_0".to_owned(), "sample_1".to_owned()]);
    for row in &mut frame.data {
        row.extend([model.mean.into(), (model.mean + 1.0).into()]);
    }
    Ok(frame)
}
