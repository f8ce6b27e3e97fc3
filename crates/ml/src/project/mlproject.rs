//! `MLproject` files as chap-core and chapkit have them, read as forgivingly as they do: only what
//! the model cannot run without is an error, all else is a note.

use std::collections::BTreeMap;

use modelyard_run::config::schema::{ConfigSchema, DEFAULT_PREDICTION_PERIODS};
use serde_json::{Map, Value};

use super::command::{self, Commands, Wrong};
use super::read::Problem;
use super::{Adapters, options, suggest};
use crate::info::{self, ModelMetadata, PeriodType, ServiceInfo};

/// Every top-level key that means something here, to chap-core, or to `MLflow`.
const KEYS: &[&str] = &[
    "name",
    "entry_points",
    "user_options",
    "meta_data",
    "target",
    "version",
    "source_url",
    "adapters",
    "required_covariates",
    "allow_free_additional_continuous_covariates",
    "supported_period_type",
    "requires_geo",
    "hpo_search_space",
    "min_prediction_periods",
    "minPredictionPeriods",
    "min_prediction_length",
    "minPredictionLength",
    "max_prediction_periods",
    "maxPredictionPeriods",
    "max_prediction_length",
    "maxPredictionLength",
    "rest_api_url",
    "docker_env",
    "renv_env",
    "python_env",
    "uv_env",
    "conda_env",
];

const ENVIRONMENTS: &[&str] = &["docker_env", "renv_env", "python_env", "uv_env", "conda_env"];

/// What an `MLproject` says.
#[derive(Clone, Debug)]
pub struct MlProject {
    pub info: ServiceInfo,
    pub config: ConfigSchema,
    pub commands: Commands,
    pub adapters: Adapters,
    /// Declared environments: the key and what it names.
    pub declared: Vec<(String, String)>,
    pub notes: Vec<String>,
}

/// Reads an `MLproject`. `params` maps further placeholders to files.
pub fn read(text: &str, params: &BTreeMap<String, String>) -> Result<MlProject, Vec<Problem>> {
    let root = parse(text).map_err(|problem| vec![problem])?;
    let mut notes = Vec::new();
    for key in root.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        notes.push(format!(
            "`{key}` is not a key of MLproject and is ignored{}",
            suggest::hint(key, KEYS)
        ));
    }

    let mut problems = Vec::new();
    let name = root.get("name").and_then(clean);
    if name.is_none() {
        problems.push(Problem::general("`name` is missing"));
    }
    let stages = ["train", "predict"]
        .map(|stage| command(&root, stage, text, params).map_err(|problem| problems.push(problem)));
    let (Some(name), [Ok(train), Ok(predict)]) = (name, stages) else { return Err(problems) };
    let commands = Commands { train, predict, validate: None };

    let info = service_info(&name, &root, &mut notes);
    let config = config_schema(&name, &root, &info, &mut notes);
    let adapters = adapters(&root, &mut notes);
    let declared = ENVIRONMENTS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), environment(root.get(*key)?)?)))
        .collect();
    Ok(MlProject { info, config, commands, adapters, declared, notes })
}

fn parse(text: &str) -> Result<Map<String, Value>, Problem> {
    // A snippet would repeat the file in a message that already names the line.
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(root)) => Ok(root),
        Ok(_) => {
            Err(Problem::general("an MLproject is a YAML mapping with `name` and `entry_points`"))
        }
        Err(error) => {
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok());
            Err(Problem { key: None, line, message: format!("not YAML: {error}") })
        }
    }
}

fn command(
    root: &Map<String, Value>,
    stage: &str,
    text: &str,
    params: &BTreeMap<String, String>,
) -> Result<String, Problem> {
    let key = format!("entry_points.{stage}.command");
    let problem = |line, message| Problem { key: Some(key.clone()), line, message };
    let line = root
        .get("entry_points")
        .and_then(|points| points.get(stage))
        .and_then(|point| point.get("command"));
    match line {
        None => Err(problem(None, format!("`{key}` is missing"))),
        Some(Value::String(line)) if !line.trim().is_empty() => {
            let line = line.trim().to_owned();
            match command::check(&line, params) {
                Ok(()) => Ok(line),
                Err(wrong) => Err(problem(
                    line_of(text, stage, &wrong.found),
                    format!("`{key}` has {}{}", wrong.message, param_hint(&wrong)),
                )),
            }
        }
        Some(_) => Err(problem(None, format!("`{key}` must be a command line"))),
    }
}

/// Both commands may have the same mistake, so the search begins where the stage does.
fn line_of(text: &str, stage: &str, found: &str) -> Option<usize> {
    let begins = |line: &str| line.trim_start().starts_with(&format!("{stage}:"));
    let start = text.lines().position(begins).unwrap_or(0);
    let behind = text.lines().skip(start).position(|line| line.contains(found))?;
    Some(start + behind + 1)
}

fn param_hint(wrong: &Wrong) -> String {
    match wrong.found.strip_prefix('{').filter(|name| command::is_name(name)) {
        Some(name) => format!("; `--param {name}=FILE` maps it to a file"),
        None => String::new(),
    }
}

fn service_info(name: &str, root: &Map<String, Value>, notes: &mut Vec<String>) -> ServiceInfo {
    let empty = Map::new();
    let meta = root.get("meta_data").and_then(Value::as_object).unwrap_or(&empty);
    let text = |key: &str| meta.get(key).and_then(clean);
    let mut info =
        ServiceInfo::with_id(info::slugify(name), text("display_name").as_deref().unwrap_or(name));
    info.description = Some(
        text("description").unwrap_or_else(|| format!("Model service for the {name} MLproject")),
    );
    info.model_metadata = metadata(meta, root, notes);
    if let Some(version) = root.get("version").and_then(clean) {
        info.version = version;
    }
    info.period_type = period_type(root, notes);
    let bounds = (horizon(root, "min", notes), horizon(root, "max", notes));
    if let (Some(min), Some(max)) = bounds
        && min > max
    {
        notes.push(format!(
            "min_prediction_periods ({min}) is greater than max_prediction_periods ({max}); both \
             are ignored"
        ));
    } else {
        info.min_prediction_periods = bounds.0.unwrap_or(info.min_prediction_periods);
        info.max_prediction_periods = bounds.1.unwrap_or(info.max_prediction_periods);
        // A bound that is given alone moves the other bound's default out of its way.
        info.max_prediction_periods = info.max_prediction_periods.max(info.min_prediction_periods);
    }
    info.required_covariates = match root.get("required_covariates") {
        Some(Value::Array(names)) => names.iter().filter_map(clean).collect(),
        _ => Vec::new(),
    };
    let free = "allow_free_additional_continuous_covariates";
    info.allow_free_additional_continuous_covariates = root.get(free).is_some_and(truth);
    info.requires_geo = root.get("requires_geo").is_some_and(truth);
    if let Some(target) = root.get("target").and_then(clean) {
        info.target = target;
    }
    match root.get("hpo_search_space") {
        Some(Value::Object(space)) => info.hpo_search_space = Some(space.clone()),
        None | Some(Value::Null) => {}
        Some(_) => notes.push("hpo_search_space is not a mapping and is ignored".to_owned()),
    }
    info
}

fn metadata(
    meta: &Map<String, Value>,
    root: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> ModelMetadata {
    let text = |key: &str| meta.get(key).and_then(clean);
    let mut parsed = Lenient { notes };
    let repository = text("repository_url").or_else(|| text("source_url"));
    let repository = parsed
        .read("meta_data.repository_url", repository)
        .or_else(|| parsed.read("source_url", root.get("source_url").and_then(clean)));
    let status = text("author_assessed_status").map(|status| status.to_lowercase());
    ModelMetadata {
        author: text("author"),
        author_note: text("author_note").or_else(|| text("description")),
        author_assessed_status: parsed.read("meta_data.author_assessed_status", status),
        contact_email: parsed.read("meta_data.contact_email", text("contact_email")),
        organization: text("organization"),
        organization_logo_url: parsed
            .read("meta_data.organization_logo_url", text("organization_logo_url")),
        citation_info: text("citation_info"),
        repository_url: repository,
        documentation_url: parsed.read("meta_data.documentation_url", text("documentation_url")),
    }
}

/// Reads checked texts; what does not pass becomes a note and is left out.
struct Lenient<'n> {
    notes: &'n mut Vec<String>,
}

impl Lenient<'_> {
    fn read<T: std::str::FromStr<Err = info::InfoError>>(
        &mut self,
        key: &str,
        text: Option<String>,
    ) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.notes.push(format!("{key} is ignored: {error}"));
                None
            }
        }
    }
}

/// The orchestrator says `week` and `month` where services say `weekly` and `monthly`.
fn period_type(root: &Map<String, Value>, notes: &mut Vec<String>) -> PeriodType {
    let Some(given) = root.get("supported_period_type").and_then(clean) else {
        return PeriodType::Any;
    };
    match given.to_lowercase().as_str() {
        "week" | "weekly" => PeriodType::Weekly,
        "month" | "monthly" => PeriodType::Monthly,
        "any" => PeriodType::Any,
        _ => {
            notes.push(format!(
                "supported_period_type `{given}` is not one of week, month, any; any is used"
            ));
            PeriodType::Any
        }
    }
}

/// A bound of the forecast horizon under whichever of the orchestrator's spellings is used.
fn horizon(root: &Map<String, Value>, bound: &str, notes: &mut Vec<String>) -> Option<u32> {
    let keys = [
        format!("{bound}_prediction_periods"),
        format!("{bound}PredictionPeriods"),
        format!("{bound}_prediction_length"),
        format!("{bound}PredictionLength"),
    ];
    let (key, value) = keys
        .iter()
        .find_map(|key| root.get(key).filter(|value| !value.is_null()).map(|value| (key, value)))?;
    let periods = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    if periods.is_none() {
        notes.push(format!("{key} is not a whole number of periods and is ignored"));
    }
    periods
}

fn config_schema(
    name: &str,
    root: &Map<String, Value>,
    info: &ServiceInfo,
    notes: &mut Vec<String>,
) -> ConfigSchema {
    let default =
        DEFAULT_PREDICTION_PERIODS.clamp(info.min_prediction_periods, info.max_prediction_periods);
    let title = format!("{}Config", class_name(name));
    let mut schema = options::schema(&title, &format!("Configuration for {name}."), default);
    let Some(Value::Object(given)) = root.get("user_options") else { return schema };
    for (name, body) in given {
        schema = schema.with_field(options::from_json_schema(name, body, notes));
    }
    schema
}

/// `ewars_template` becomes `EwarsTemplate`: the name that chapkit gives the config's class.
fn class_name(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let joined: String = parts
        .map(|part| {
            let (first, rest) = part.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect();
    match joined.chars().next() {
        None => "MLProject".to_owned(),
        Some(first) if first.is_ascii_alphabetic() => joined,
        Some(_) => format!("ML{joined}"),
    }
}

fn adapters(root: &Map<String, Value>, notes: &mut Vec<String>) -> Adapters {
    match root.get("adapters") {
        Some(Value::Object(pairs)) => Adapters(
            pairs.iter().filter_map(|(to, from)| Some((to.clone(), clean(from)?))).collect(),
        ),
        None | Some(Value::Null) => Adapters::default(),
        Some(_) => {
            notes.push("adapters is not a mapping of column names and is ignored".to_owned());
            Adapters::default()
        }
    }
}

/// What a declared environment names: an image, a file.
fn environment(value: &Value) -> Option<String> {
    clean(value.get("image").unwrap_or(value))
        .or_else(|| (!value.is_null()).then(|| value.to_string()))
}

/// A scalar as text without blanks around it; nothing when there is no text in it.
fn clean(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// YAML writers say yes in many ways.
fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => {
            matches!(text.trim().to_lowercase().as_str(), "true" | "yes" | "on" | "1")
        }
        Value::Number(number) => number.as_u64() == Some(1),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
