//! `modelyard init`: a new directory with a model that works, for the author to replace.

use std::io;
use std::path::{Path, PathBuf};

use modelyard_ml::info::{ServiceId, slugify};
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Where the published crate is.
const REPOSITORY: &str = "git = \"https://github.com/modelyard/modelyard\"";
/// The crate in a checkout.
const CRATE: &str = "crates/modelyard";

/// What kind of project to begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// Python scripts on the standard library.
    #[default]
    ShellPy,
    /// R scripts on base R.
    ShellR,
    /// A Rust program with the model as functions.
    RustFn,
}

impl Template {
    /// The command that serves a project of this kind in `directory`.
    pub fn command(self, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::ShellPy | Self::ShellR => format!("modelyard serve {directory}"),
            Self::RustFn => format!("cd {directory} && cargo run --release"),
        }
    }
}

/// What to make, and where.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Becomes the service's id and the directory's name.
    pub name: String,
    pub template: Template,
    /// The directory in which the project's directory is made.
    pub path: PathBuf,
    /// A checkout of Modelyard that a Rust program is to use; the published repository unless given.
    pub modelyard: Option<PathBuf>,
}

/// Why no project was made. Nothing is left behind then.
#[derive(Debug, Error)]
pub enum InitError {
    #[error(
        "`{given}` cannot be a service's id, which is lower-case letters and digits in groups \
         joined by hyphens; `{suggested}` can"
    )]
    Name { given: String, suggested: ServiceId },
    #[error("{} exists already; choose another name or --path", .0.display())]
    Exists(PathBuf),
    /// There is no Modelyard to build a program with.
    #[error("{} is no checkout of Modelyard: there is no {CRATE}/Cargo.toml in it", .0.display())]
    NoCheckout(PathBuf),
    /// The source names the path.
    #[error("the project cannot be written")]
    Unwritable(#[source] io::Error),
}

/// Makes a project's directory and files, and lists the files.
pub fn create(options: &InitOptions) -> Result<Vec<PathBuf>, InitError> {
    let InitOptions { name, template, path, modelyard } = options;
    let id: ServiceId = name
        .parse()
        .map_err(|_| InitError::Name { given: name.clone(), suggested: slugify(name) })?;
    let source = modelyard.as_deref().map_or_else(|| Ok(REPOSITORY.to_owned()), checkout)?;
    let root = path.join(id.as_str());
    fs_err::create_dir_all(path).map_err(InitError::Unwritable)?;
    fs_err::create_dir(&root).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(root.clone()),
        _ => InitError::Unwritable(error),
    })?;
    write(&root, &id, &source, *template).map_err(|error| {
        // Half a project would only be in the way of the next attempt. What went wrong first is
        // the news; that it could not be cleaned up as well is not.
        let _ = fs_err::remove_dir_all(&root);
        InitError::Unwritable(error)
    })
}

/// The dependency on the crate of a checkout, wherever the project is.
fn checkout(root: &Path) -> Result<String, InitError> {
    let found = fs_err::canonicalize(root.join(CRATE));
    match found {
        Ok(it) if it.join("Cargo.toml").is_file() => {
            // Quoted as TOML wants it.
            Ok(format!("path = {}", toml::Value::from(it.display().to_string())))
        }
        _ => Err(InitError::NoCheckout(root.to_owned())),
    }
}

fn write(
    root: &Path,
    id: &ServiceId,
    source: &str,
    template: Template,
) -> io::Result<Vec<PathBuf>> {
    let title = title(id);
    files(template)
        .iter()
        .map(|(name, text)| {
            let file = root.join(name);
            if let Some(directory) = file.parent() {
                fs_err::create_dir_all(directory)?;
            }
            let text = text.replace("@NAME@", id.as_str()).replace("@TITLE@", &title);
            fs_err::write(&file, text.replace("@SOURCE@", source))?;
            Ok(file)
        })
        .collect()
}

/// `dengue-baseline` becomes `Dengue Baseline`.
fn title(id: &ServiceId) -> String {
    let words: Vec<String> = id
        .as_str()
        .split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect()
        })
        .collect();
    words.join(" ")
}

/// Where each file of a template goes, and its text.
fn files(template: Template) -> &'static [(&'static str, &'static str)] {
    match template {
        Template::ShellPy => &[
            ("modelyard.toml", include_str!("templates/shell-py/modelyard.toml")),
            ("scripts/train.py", include_str!("templates/shell-py/scripts/train.py")),
            ("scripts/predict.py", include_str!("templates/shell-py/scripts/predict.py")),
            ("README.md", include_str!("templates/shell-py/README.md")),
            (".gitignore", include_str!("templates/shell-py/gitignore")),
        ],
        Template::ShellR => &[
            ("modelyard.toml", include_str!("templates/shell-r/modelyard.toml")),
            ("scripts/train.R", include_str!("templates/shell-r/scripts/train.R")),
            ("scripts/predict.R", include_str!("templates/shell-r/scripts/predict.R")),
            ("README.md", include_str!("templates/shell-r/README.md")),
            (".gitignore", include_str!("templates/shell-r/gitignore")),
        ],
        Template::RustFn => &[
            // Not named Cargo.toml here: cargo would take the template for a package.
            ("Cargo.toml", include_str!("templates/rust-fn/Cargo.toml.txt")),
            ("src/main.rs", include_str!("templates/rust-fn/src/main.rs")),
            ("README.md", include_str!("templates/rust-fn/README.md")),
            (".gitignore", include_str!("templates/rust-fn/gitignore")),
        ],
    }
}
