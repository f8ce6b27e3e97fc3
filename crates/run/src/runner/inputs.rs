//! The files a run begins with: `config.yml`, the frames as CSV, and `geo.json`.

use std::{
    io::{self, Write as _},
    path::Path,
};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::config::schema::{ADDITIONAL_COVARIATES, PREDICTION_PERIODS};

use super::{PredictInput, RunError, TrainInput};

/// What `config.yml` looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigFormat {
    /// All keys at the top.
    #[default]
    Flat,
    /// As chap-core has it: the options of the model are below `user_option_values`.
    ChapCore,
}

/// What a training begins with.
pub fn of_train(
    input: &TrainInput,
    format: ConfigFormat,
) -> Result<Vec<(&'static str, Bytes)>, RunError> {
    let TrainInput { config, data, geo } = input;
    let mut files = vec![config_file(config, format)?, ("data.csv", data.to_csv().into())];
    files.extend(geo_file(geo.as_ref())?);
    Ok(files)
}

/// What a prediction begins with. A `geo.json` of the training stays if there is no new one.
pub fn of_predict(
    input: &PredictInput,
    format: ConfigFormat,
) -> Result<Vec<(&'static str, Bytes)>, RunError> {
    let PredictInput { config, historic, future, geo } = input;
    let mut files = vec![
        config_file(config, format)?,
        ("historic.csv", historic.to_csv().into()),
        ("future.csv", future.to_csv().into()),
    ];
    files.extend(geo_file(geo.as_ref())?);
    Ok(files)
}

/// Writes files to a directory. Blocks.
///
/// The project may have a file of such a name, which may be a link or not for us to write to. Only
/// the copy of it goes.
pub fn write(directory: &Path, files: &[(&'static str, Bytes)]) -> Result<(), RunError> {
    for (name, content) in files {
        let file = directory.join(name);
        let mut made = match fs_err::File::create_new(&file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs_err::remove_file(&file)?;
                fs_err::File::create_new(&file)?
            }
            made => made?,
        };
        made.write_all(content)?;
    }
    Ok(())
}

fn config_file(
    config: &Map<String, Value>,
    format: ConfigFormat,
) -> Result<(&'static str, Bytes), RunError> {
    Ok(("config.yml", config_yaml(config, format)?.into()))
}

fn geo_file(geo: Option<&Value>) -> Result<Option<(&'static str, Bytes)>, RunError> {
    let Some(geo) = geo else { return Ok(None) };
    let text = serde_json::to_vec_pretty(geo).map_err(io::Error::from)?;
    Ok(Some(("geo.json", text.into())))
}

/// Block style with sorted keys, every string written so that it reads back as a string, also by
/// readers of the older YAML (R's, and Python's) for which `no` is a boolean and `1:30` a number.
fn config_yaml(config: &Map<String, Value>, format: ConfigFormat) -> Result<String, RunError> {
    const OWN: [&str; 2] = [ADDITIONAL_COVARIATES, PREDICTION_PERIODS];
    let config = match format {
        ConfigFormat::Flat => config.clone(),
        ConfigFormat::ChapCore => {
            let (mut top, options): (Map<_, _>, Map<_, _>) =
                config.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ConfigFormat, config_yaml};

    fn yaml(config: Value, format: ConfigFormat) -> String {
        let Value::Object(config) = config else { panic!("a config is an object") };
        config_yaml(&config, format).unwrap()
    }

    #[test]
    fn the_config_is_sorted_and_plain() {
        let config = json!({
            "prediction_periods": 3,
            "additional_continuous_covariates": ["rainfall", "mean temperature"],
            "rate": 0.01,
            "tiny": 1e-7,
            "whole": 1.0,
            "flag": true,
            "none": null,
            "empty": [],
            "nothing": {},
            "nested": {"b": [{"z": 1, "x": [2]}], "a": -1},
        });
        assert_eq!(
            yaml(config, ConfigFormat::Flat),
            "\
additional_continuous_covariates:
- rainfall
- mean temperature
empty: []
flag: true
nested:
  a: -1
  b:
  - x:
    - 2
    z: 1
none: null
nothing: {}
prediction_periods: 3
rate: 0.01
tiny: 1.0e-7
whole: 1.0
"
        );
    }

    #[test]
    fn strings_stay_strings_for_every_reader() {
        let quoted = [
            "no",
            "y",
            "Off",
            "true",
            "null",
            "~",
            "",
            "1",
            "1.0",
            "1e3",
            "0x1f",
            "012",
            "1:30",
            "2023-01-05",
            "1_000",
            ".5",
            ".inf",
            "-",
            "- a",
            "a: b",
            "a #b",
            "*a",
            "{a}",
            "=",
            "a\n",
        ];
        for text in quoted {
            let line = yaml(json!({ "key": text }), ConfigFormat::Flat);
            let value = line.strip_prefix("key: ").unwrap();
            assert!(value.starts_with(['"', '\'']) && line.lines().count() == 1, "{line}");
        }
        let line = yaml(json!({"on": "2023-W05 größe, x'y"}), ConfigFormat::Flat);
        assert_eq!(line, "\"on\": 2023-W05 größe, x'y\n");
    }

    #[test]
    fn options_go_below_for_chap_core() {
        let config =
            json!({"n_lags": 2, "prediction_periods": 3, "additional_continuous_covariates": []});
        assert_eq!(
            yaml(config, ConfigFormat::ChapCore),
            "additional_continuous_covariates: []\nprediction_periods: 3\nuser_option_values:\n  n_lags: 2\n"
        );
    }
}
