//! The files a run begins with: `config.yml`, the frames as CSV, and `geo.json`.

use std::{io, path::Path};

use serde_json::{Map, Value};

use super::{PredictInput, RunError, TrainInput};
use crate::frame::Frame;

/// What `config.yml` looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigFormat {
    /// All keys at the top.
    #[default]
    Flat,
    /// As chap-core has it: the options of the model are below `user_option_values`.
    ChapCore,
}

/// Writes what a training begins with. Blocks.
pub fn write_train(
    directory: &Path,
    input: &TrainInput,
    format: ConfigFormat,
) -> Result<(), RunError> {
    let TrainInput { config, data, geo } = input;
    write_config(directory, config, format)?;
    write_frame(directory, "data.csv", data)?;
    write_geo(directory, geo.as_ref())
}

/// Writes what a prediction begins with. Blocks. A `geo.json` of the training stays if there is
/// no new one.
pub fn write_predict(
    directory: &Path,
    input: &PredictInput,
    format: ConfigFormat,
) -> Result<(), RunError> {
    let PredictInput { config, historic, future, geo } = input;
    write_config(directory, config, format)?;
    write_frame(directory, "historic.csv", historic)?;
    write_frame(directory, "future.csv", future)?;
    write_geo(directory, geo.as_ref())
}

pub fn write_frame(directory: &Path, name: &str, frame: &Frame) -> Result<(), RunError> {
    Ok(fs_err::write(directory.join(name), frame.to_csv())?)
}

fn write_config(
    directory: &Path,
    config: &Map<String, Value>,
    format: ConfigFormat,
) -> Result<(), RunError> {
    Ok(fs_err::write(directory.join("config.yml"), config_yaml(config, format)?)?)
}

fn write_geo(directory: &Path, geo: Option<&Value>) -> Result<(), RunError> {
    let Some(geo) = geo else { return Ok(()) };
    let text = serde_json::to_vec_pretty(geo).map_err(io::Error::from)?;
    Ok(fs_err::write(directory.join("geo.json"), text)?)
}

/// Block style with sorted keys, every string written so that it reads back as a string, also by
/// readers of the older YAML (R's, and Python's) for which `no` is a boolean and `1:30` a number.
fn config_yaml(config: &Map<String, Value>, format: ConfigFormat) -> Result<String, RunError> {
    const OWN: [&str; 2] = ["additional_continuous_covariates", "prediction_periods"];
    let config = match format {
        ConfigFormat::Flat => config.clone(),
        ConfigFormat::ChapCore => {
            let (mut top, options): (Map<_, _>, Map<_, _>) = config
                .clone()
                .into_iter()
                .partition(|(name, _)| OWN.contains(&name.as_str()));
            top.insert("user_option_values".to_owned(), Value::Object(options));
            top
        }
    };
    let mut config = Value::Object(config);
    config.sort_all_objects();
    // Folded blocks are YAML as well, but not everything that reads a config is a full reader.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&config, options)
        .map_err(|error| io::Error::other(error).into())
}
