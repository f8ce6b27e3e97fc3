//! A model that forecasts the mean of what each location has seen before.

use std::collections::BTreeMap;
use std::error::Error;

use modelyard::{Frame, ModelError, PredictData, Service, ServiceInfo, TrainData, functions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The options that a user can set.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// What every forecast is multiplied by
    #[serde(default = "one")]
    factor: f64,
}

fn one() -> f64 {
    1.0
}

/// What training finds out: the mean of the cases in each location.
#[derive(Serialize, Deserialize)]
struct Means(BTreeMap<String, f64>);

async fn train(_config: Config, input: TrainData) -> Result<Means, ModelError> {
    let location = column(&input.data, "location")?;
    let cases = column(&input.data, "disease_cases")?;
    let mut seen: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in &input.data.data {
        if let (Some(location), Some(cases)) = (row[location].as_str(), row[cases].as_f64()) {
            seen.entry(location.to_owned()).or_default().push(cases);
        }
    }
    let mean = |cases: Vec<f64>| cases.iter().sum::<f64>() / cases.len() as f64;
    Ok(Means(seen.into_iter().map(|(location, cases)| (location, mean(cases))).collect()))
}

async fn predict(config: Config, means: Means, input: PredictData) -> Result<Frame, ModelError> {
    let mut frame = input.future;
    let location = column(&frame, "location")?;
    frame.columns.push("sample_0".to_owned());
    for row in &mut frame.data {
        let mean = row[location].as_str().and_then(|location| means.0.get(location));
        row.push((mean.copied().unwrap_or(0.0) * config.factor).into());
    }
    Ok(frame)
}

fn column(frame: &Frame, name: &str) -> Result<usize, ModelError> {
    let missing = || ModelError::of("ValueError", format!("the data has no column `{name}`"));
    frame.column(name).ok_or_else(missing)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut info = ServiceInfo::new("@NAME@", "@TITLE@");
    info.description = Some("Forecasts the mean of what each location has seen before.".to_owned());
    info.min_prediction_periods = 1;
    info.max_prediction_periods = 12;

    Service::builder(info).config::<Config>().runner(functions(train, predict)).serve().await?;
    Ok(())
}
