//! The model of `examples/dengue` as Rust functions: a service in one program.

mod calendar;
mod climate;
mod forecast;
mod linear;
mod model;
mod random;
mod samples;
mod table;
#[cfg(test)]
mod tests;
mod validate;

use std::error::Error;

use modelyard::{
    AssessedStatus, Frame, ModelError, ModelMetadata, PeriodType, PredictData, Service,
    ServiceBuilder, ServiceInfo, TrainData, functions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{model::Model, table::Table};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    service()?.serve().await?;
    Ok(())
}

fn service() -> Result<ServiceBuilder, Box<dyn Error>> {
    let runner = functions(train, predict)
        .validate_train(|options, input| async move { Ok(validate::train(&options, &input)) })
        .validate_predict(|options, input| async move { Ok(validate::predict(&options, &input)) });
    Ok(Service::builder(info()?).config::<Options>().runner(runner))
}

/// What a user can set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "Dengue seasonal baseline")]
struct Options {
    /// Samples for each forecast row.
    #[schemars(range(min = 1, max = 10_000))]
    n_samples: u16,
    /// Months that climate is looked back on; 0 leaves climate out.
    #[schemars(range(min = 0, max = 12))]
    n_lags: u8,
    /// Weight of the pooled answer against a location's own data, in months of data.
    #[schemars(range(min = 0, max = 1_000_000))]
    ridge: f64,
    /// Start of the random numbers; the same seed gives the same samples.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    seed: u32,
    /// Columns to learn from, besides rainfall and mean temperature.
    additional_continuous_covariates: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            n_samples: 100,
            n_lags: 3,
            ridge: 10.0,
            seed: 1,
            additional_continuous_covariates: Vec::new(),
        }
    }
}

impl Options {
    /// All covariates to learn from, each once.
    fn covariates(&self) -> Vec<&str> {
        let mut names = vec!["rainfall", "mean_temperature"];
        for name in &self.additional_continuous_covariates {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

async fn train(options: Options, input: TrainData) -> Result<Model, ModelError> {
    let table = Table::read("training", &input.data, &options.covariates())?;
    // Where a run that was cancelled meanwhile ends.
    tokio::task::yield_now().await;
    Ok(Model::train(&table, &options)?)
}

async fn predict(options: Options, model: Model, input: PredictData) -> Result<Frame, ModelError> {
    let covariates = model.covariate_names();
    let historic = Table::read("historic", &input.historic, &covariates)?;
    let future = Table::read("future", &input.future, &covariates)?;
    tokio::task::yield_now().await;
    Ok(forecast::predict(&model, &historic, &future, &options)?)
}

fn info() -> Result<ServiceInfo, Box<dyn Error>> {
    Ok(ServiceInfo {
        description: Some(
            "Seasonal regression of log incidence with lagged rainfall and temperature, partly \
             pooled over locations, carried on from the latest anomaly. Samples are built from the \
             errors of its own past forecasts."
                .to_owned(),
        ),
        model_metadata: ModelMetadata {
            author: Some("The Modelyard authors".to_owned()),
            author_note: Some(
                "A baseline to compare other models with. Checked on monthly data, not validated \
                 for any country."
                    .to_owned(),
            ),
            author_assessed_status: Some(AssessedStatus::Orange),
            organization: Some("Modelyard".to_owned()),
            contact_email: Some("modelyard@example.org".parse()?),
            ..ModelMetadata::default()
        },
        period_type: PeriodType::Monthly,
        min_prediction_periods: 1,
        max_prediction_periods: 12,
        allow_free_additional_continuous_covariates: true,
        required_covariates: ["population", "rainfall", "mean_temperature"]
            .map(str::to_owned)
            .into(),
        ..ServiceInfo::new("dengue-seasonal-baseline-rust", "Dengue seasonal baseline in Rust")
    })
}
