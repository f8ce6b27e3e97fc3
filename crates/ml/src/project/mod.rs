//! A directory becomes a model: reading `modelyard.toml` or an `MLproject`, and finding the
//! language environment beside it.
//!
//! The native manifest is read strictly, an `MLproject` as forgivingly as the orchestrator's own
//! tools do: what they ignore is ignored here, with a note.

pub mod adapters;
pub mod command;
pub mod environment;
pub mod manifest;
pub mod mlproject;
pub mod options;
pub mod read;
pub mod suggest;
pub mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use modelyard_run::config::schema::ConfigSchema;
use modelyard_run::runner::{ConfigFormat, Limits, ShellSpec};
use thiserror::Error;

pub use self::adapters::Adapters;
use self::command::Commands;
use self::manifest::{Manifest, Model};
use self::mlproject::MlProject;
pub use self::read::Problem;
use crate::info::ServiceInfo;

/// The native manifest's file name.
pub const MANIFEST: &str = "modelyard.toml";
/// The names an `MLproject` may have, in order of preference.
pub const MLPROJECT: &[&str] = &["MLproject", "MLproject.yaml", "MLproject.yml"];

/// A model as its directory describes it: all that is needed to serve it.
#[derive(Clone, Debug)]
pub struct Project {
    /// Absolute, links resolved.
    pub root: PathBuf,
    /// The file that describes the model.
    pub file: PathBuf,
    pub info: ServiceInfo,
    pub config: ConfigSchema,
    pub shell: ShellSpec,
    /// What the trees of its artifacts are called.
    pub hierarchy: String,
    /// Columns to add to the data before the model sees it.
    pub adapters: Adapters,
    /// What the user should know although it is no error, one sentence each.
    pub notes: Vec<String>,
}

/// What a project's own files cannot know.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Further placeholders of an `MLproject`'s commands, with the file that each stands for.
    pub params: BTreeMap<String, String>,
    /// The `PATH` that commands inherit; a virtual environment is put in front of it.
    pub search_path: Option<OsString>,
}

impl LoadOptions {
    /// With the `PATH` of this process.
    pub fn from_environment() -> Self {
        Self { search_path: std::env::var_os("PATH"), ..Self::default() }
    }
}

/// One `--param NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub file: String,
}

impl FromStr for Param {
    type Err = String;

    fn from_str(text: &str) -> Result<Param, String> {
        match text.split_once('=') {
            Some((name, file)) if command::is_name(name) && !file.is_empty() => {
                Ok(Param { name: name.to_owned(), file: file.to_owned() })
            }
            _ => Err(format!("`{text}` is not NAME=FILE, as in `lags_file=lags.csv`")),
        }
    }
}

/// Why a directory is not a model.
#[derive(Debug, Error)]
pub enum ProjectError {
    #[error(
        "there is no model in {}: looked for {MANIFEST} and {}; `modelyard init` makes one",
        .0.display(), MLPROJECT.join(", ")
    )]
    Missing(PathBuf),
    /// The source names the path.
    #[error("the project cannot be read")]
    Unreadable(#[source] io::Error),
    /// At least one problem.
    #[error("{}", Listed(.file, .problems))]
    Invalid { file: PathBuf, problems: Vec<Problem> },
}

struct Listed<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed(file, problems) = self;
        for (index, problem) in problems.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{}", file.display())?;
            if let Some(line) = problem.line {
                write!(formatter, ":{line}")?;
            }
            write!(formatter, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl Project {
    /// Reads the model in `directory`, with the `PATH` of this process for its commands.
    pub fn load(directory: impl AsRef<Path>) -> Result<Project, ProjectError> {
        // PATH is no setting of ours: commands inherit it, and one with a .venv in front is set
        // for them.
        Project::load_with(directory, &LoadOptions::from_environment())
    }

    /// Reads the model in `directory`. The native manifest wins over an `MLproject`; one that only
    /// has settings and limits leaves it to the `MLproject` to say what the model is.
    pub fn load_with(
        directory: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Project, ProjectError> {
        let root = fs_err::canonicalize(directory.as_ref()).map_err(ProjectError::Unreadable)?;
        let native = existing(&root, &[MANIFEST]);
        let foreign = existing(&root, MLPROJECT);
        match (native, foreign) {
            (Some(native), foreign) => match (read_manifest(&native)?, foreign) {
                (Manifest::Model(model), _) => Ok(from_manifest(root, native, *model, options)),
                (Manifest::Settings { limits }, Some(foreign)) => {
                    load_mlproject(root, foreign, limits, options)
                }
                (Manifest::Settings { .. }, None) => Err(no_model(native)),
            },
            (None, Some(foreign)) => load_mlproject(root, foreign, Limits::default(), options),
            (None, None) => Err(ProjectError::Missing(root)),
        }
    }
}

fn read_manifest(file: &Path) -> Result<Manifest, ProjectError> {
    let text = fs_err::read_to_string(file).map_err(ProjectError::Unreadable)?;
    manifest::read(&text)
        .map_err(|problems| ProjectError::Invalid { file: file.to_owned(), problems })
}

fn no_model(file: PathBuf) -> ProjectError {
    let message = "`service` and `runner` are missing, and there is no MLproject to say what the \
                   model is";
    ProjectError::Invalid { file, problems: vec![Problem::general(message)] }
}

fn from_manifest(root: PathBuf, file: PathBuf, model: Model, options: &LoadOptions) -> Project {
    let Model { info, config, commands, config_format, mut environment, limits } = model;
    let found = environment::detect(&root, &[], options.search_path.as_deref());
    // What the manifest says wins over what is found beside it.
    for (name, value) in found.variables {
        environment.entry(name).or_insert(value);
    }
    Project {
        hierarchy: info.id.as_str().replace('-', "_"),
        shell: shell(&root, commands, config_format, limits, environment),
        root,
        file,
        info,
        config,
        adapters: Adapters::default(),
        notes: found.notes,
    }
}

fn load_mlproject(
    root: PathBuf,
    file: PathBuf,
    limits: Limits,
    options: &LoadOptions,
) -> Result<Project, ProjectError> {
    let text = fs_err::read_to_string(&file).map_err(ProjectError::Unreadable)?;
    let read = match mlproject::read(&text, &options.params) {
        Ok(read) => read,
        Err(problems) => return Err(ProjectError::Invalid { file, problems }),
    };
    let MlProject { info, config, commands, adapters, declared, mut notes } = read;
    let found = environment::detect(&root, &declared, options.search_path.as_deref());
    notes.extend(found.notes);
    let shell = shell(&root, commands, ConfigFormat::ChapCore, limits, found.variables);
    Ok(Project {
        // The name that chapkit gives every MLproject's.
        hierarchy: "mlproject".to_owned(),
        shell: ShellSpec { parameters: options.params.clone(), ..shell },
        root,
        file,
        info,
        config,
        adapters,
        notes,
    })
}

fn shell(
    root: &Path,
    commands: Commands,
    config_format: ConfigFormat,
    limits: Limits,
    environment: BTreeMap<String, String>,
) -> ShellSpec {
    let Commands { train, predict, validate } = commands;
    ShellSpec {
        validate,
        config_format,
        limits,
        environment,
        ..ShellSpec::new(root, train, predict)
    }
}

fn existing(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_file())
}
