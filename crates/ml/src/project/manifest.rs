//! `modelyard.toml`, the native manifest: read strictly, so that a slip of the fingers is told and
//! not ignored.

use std::collections::BTreeMap;

use modelyard_run::config::schema::{ConfigSchema, DEFAULT_PREDICTION_PERIODS};
use modelyard_run::runner::{ConfigFormat, Limits};

use super::command::{self, Commands};
pub use super::read::locate;
use super::read::{Document, Problem, Section};
use super::{options, units};
use crate::info::{AssessedStatus, ModelMetadata, PeriodType, ServiceId, ServiceInfo, slugify};

/// The tables of the process's settings, which the same file may carry. Whoever loads the settings
/// checks them.
pub const SETTINGS: &[&str] = &[
    "server",
    "database",
    "data",
    "registration",
    "auth",
    "logging",
    "jobs",
    "tasks",
    "blobs",
    "info",
    "access",
    "audit",
    "mail",
    "rate_limits",
];

/// The tables that describe the model.
pub const MODEL: &[&str] = &["service", "config", "runner", "limits"];

const SERVICE: &[&str] = &[
    "id",
    "display_name",
    "version",
    "description",
    "period_type",
    "min_prediction_periods",
    "max_prediction_periods",
    "allow_free_additional_continuous_covariates",
    "required_covariates",
    "requires_geo",
    "target",
    "hpo_search_space",
    "metadata",
];

const METADATA: &[&str] = &[
    "author",
    "author_note",
    "author_assessed_status",
    "contact_email",
    "organization",
    "organization_logo_url",
    "citation_info",
    "repository_url",
    "documentation_url",
];

const CONFIG: &[&str] = &["title", "description", "prediction_periods", "fields"];
const RUNNER: &[&str] = &["train", "predict", "validate", "config_format", "environment"];
const LIMITS: &[&str] = &[
    "wall_time",
    "cpu_time",
    "memory",
    "resident_memory",
    "workspace",
    "output",
    "file",
    "archive",
    "archive_entries",
];

/// What a manifest says.
#[derive(Clone, Debug)]
pub enum Manifest {
    Model(Box<Model>),
    /// Nothing about a model: settings, and perhaps limits for the `MLproject` beside it.
    Settings {
        limits: Limits,
    },
}

/// A model as its manifest describes it.
#[derive(Clone, Debug)]
pub struct Model {
    pub info: ServiceInfo,
    pub config: ConfigSchema,
    pub commands: Commands,
    pub config_format: ConfigFormat,
    pub environment: BTreeMap<String, String>,
    pub limits: Limits,
}

/// Reads a manifest. All its problems come at once, in the order of their lines.
pub fn read(text: &str) -> Result<Manifest, Vec<Problem>> {
    let document = Document::parse(text).map_err(|problem| vec![problem])?;
    let manifest = read_document(&document);
    let problems = document.into_problems();
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(manifest),
        _ => Err(problems),
    }
}

/// Nothing only when a problem has been reported.
fn read_document(document: &Document<'_>) -> Option<Manifest> {
    let root = document.root();
    root.only(&[MODEL, SETTINGS].concat());
    let limits = root.section("limits").map_or_else(Limits::default, |section| limits(&section));
    if !["service", "config", "runner"].iter().any(|table| root.has(table)) {
        return Some(Manifest::Settings { limits });
    }
    let info = required(&root, "service").and_then(|section| service(&section));
    let commands = required(&root, "runner").and_then(|section| runner(&section));
    let bounds = info
        .as_ref()
        .map_or((0, u32::MAX), |info| (info.min_prediction_periods, info.max_prediction_periods));
    let id = info.as_ref().map_or("model", |info| info.id.as_str());
    let config = config(root.section("config").as_ref(), id, bounds);
    let (commands, config_format, environment) = commands?;
    Some(Manifest::Model(Box::new(Model {
        info: info?,
        config: config?,
        commands,
        config_format,
        environment,
        limits,
    })))
}

fn required<'d>(root: &Section<'d>, key: &str) -> Option<Section<'d>> {
    if !root.has(key) {
        root.missing(key);
    }
    root.section(key)
}

fn service(section: &Section<'_>) -> Option<ServiceInfo> {
    section.only(SERVICE);
    let id = section.required_string("id").and_then(|_| section.parsed::<ServiceId>("id"));
    let display_name = section.required_string("display_name");
    let complete = id.is_some() && display_name.is_some();
    // A stand-in until the end, so that the problems of all keys come to light.
    let id = id.unwrap_or_else(|| slugify("unnamed"));
    let mut info = ServiceInfo::with_id(id, &display_name.unwrap_or_default());
    info.description = section.string("description");
    let metadata = section.section("metadata").map(|section| metadata(&section));
    info.model_metadata = metadata.unwrap_or_default();
    set(&mut info.version, section.string("version"));
    let period_type = section.choice("period_type", PeriodType::NAMES);
    set(&mut info.period_type, period_type.and_then(|name| name.parse().ok()));
    set(&mut info.min_prediction_periods, section.whole("min_prediction_periods"));
    set(&mut info.max_prediction_periods, section.whole("max_prediction_periods"));
    set(
        &mut info.allow_free_additional_continuous_covariates,
        section.boolean("allow_free_additional_continuous_covariates"),
    );
    set(&mut info.required_covariates, section.strings("required_covariates"));
    set(&mut info.requires_geo, section.boolean("requires_geo"));
    set(&mut info.target, section.string("target"));
    info.hpo_search_space = section.section("hpo_search_space").and_then(|_| {
        section.json("hpo_search_space").and_then(|space| space.as_object().cloned())
    });
    if let Err(error) = info.check() {
        let key = ["min_prediction_periods", "max_prediction_periods"]
            .into_iter()
            .find(|key| section.has(key))
            .unwrap_or("max_prediction_periods");
        section.fail(key, format!("in `service`: {error}"));
        return None;
    }
    complete.then_some(info)
}

fn metadata(section: &Section<'_>) -> ModelMetadata {
    section.only(METADATA);
    let status = section.choice("author_assessed_status", AssessedStatus::NAMES);
    ModelMetadata {
        author: section.string("author"),
        author_note: section.string("author_note"),
        author_assessed_status: status.and_then(|name| name.parse().ok()),
        contact_email: section.parsed("contact_email"),
        organization: section.string("organization"),
        organization_logo_url: section.parsed("organization_logo_url"),
        citation_info: section.string("citation_info"),
        repository_url: section.parsed("repository_url"),
        documentation_url: section.parsed("documentation_url"),
    }
}

/// Nothing only when a problem has been reported.
fn config(section: Option<&Section<'_>>, id: &str, bounds: (u32, u32)) -> Option<ConfigSchema> {
    let (min, max) = bounds;
    let (title, description) = ("ModelConfig".to_owned(), format!("Configuration of {id}."));
    let Some(section) = section else {
        let horizon = DEFAULT_PREDICTION_PERIODS.clamp(min, max.max(min));
        return Some(options::schema(&title, &description, horizon));
    };
    section.only(CONFIG);
    let title = section.string("title").unwrap_or(title);
    let description = section.string("description").unwrap_or(description);
    let horizon = section
        .whole("prediction_periods")
        .unwrap_or_else(|| DEFAULT_PREDICTION_PERIODS.clamp(min, max.max(min)));
    if horizon < min || horizon > max {
        section.fail(
            "prediction_periods",
            format!(
                "`config.prediction_periods` is {horizon}, and the service allows {min} to {max}"
            ),
        );
    }
    let mut schema = options::schema(&title, &description, horizon);
    let mut complete = true;
    for (name, field) in
        section.section("fields").map(|fields| fields.sections()).unwrap_or_default()
    {
        match options::from_manifest(name, &field) {
            Some(field) => schema = schema.with_field(field),
            None => complete = false,
        }
    }
    complete.then_some(schema)
}

type Runner = (Commands, ConfigFormat, BTreeMap<String, String>);

fn runner(section: &Section<'_>) -> Option<Runner> {
    section.only(RUNNER);
    let none = BTreeMap::new();
    let train = checked(section, "train", &none);
    let predict = checked(section, "predict", &none);
    // The runner tells the command which request it is to check.
    let stage = BTreeMap::from([("stage".to_owned(), String::new())]);
    let validate = section.has("validate").then(|| checked(section, "validate", &stage));
    let config_format = match section.choice("config_format", &["flat", "chap_core"]).as_deref() {
        Some("chap_core") => ConfigFormat::ChapCore,
        _ => ConfigFormat::Flat,
    };
    let environment = section.section("environment").map(|section| environment(&section));
    let validate = match validate {
        Some(validate) => Some(validate?),
        None => None,
    };
    let commands = Commands { train: train?, predict: predict?, validate };
    Some((commands, config_format, environment.unwrap_or_default()))
}

fn checked(
    section: &Section<'_>,
    stage: &str,
    params: &BTreeMap<String, String>,
) -> Option<String> {
    let line = section.required_string(stage)?;
    if let Err(wrong) = command::check(&line, params) {
        section.fail(stage, format!("`{}` has {}", section.dotted(stage), wrong.message));
        return None;
    }
    Some(line)
}

fn environment(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, _, _) in section.entries() {
        if name.is_empty() || name.contains(['=', '\0']) {
            section.fail(name, format!("{name:?} cannot be the name of an environment variable"));
        } else if let Some(value) = section.string(name) {
            if value.contains('\0') {
                let key = section.dotted(name);
                section.fail(
                    name,
                    format!("`{key}` has a NUL, which no environment variable can carry"),
                );
            } else {
                variables.insert(name.to_owned(), value);
            }
        }
    }
    variables
}

fn limits(section: &Section<'_>) -> Limits {
    section.only(LIMITS);
    let duration = |key| section.notation(key, units::DURATION, units::duration);
    let size = |key| section.notation(key, units::SIZE, units::size);
    let mut limits = Limits::default();
    limits.wall_time = duration("wall_time").or(limits.wall_time);
    limits.cpu_time = duration("cpu_time").or(limits.cpu_time);
    limits.memory_bytes = size("memory").or(limits.memory_bytes);
    limits.resident_bytes = size("resident_memory").or(limits.resident_bytes);
    limits.workspace_bytes = size("workspace").or(limits.workspace_bytes);
    limits.file_bytes = size("file").or(limits.file_bytes);
    set(&mut limits.output_bytes, size("output").and_then(|bytes| usize::try_from(bytes).ok()));
    set(&mut limits.archive.total_bytes, size("archive"));
    let entries =
        section.whole("archive_entries").and_then(|entries| usize::try_from(entries).ok());
    set(&mut limits.archive.entries, entries);
    limits
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}
