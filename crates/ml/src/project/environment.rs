//! The language environment beside a project: used when it is there, pointed out when it is not.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables that make a project's commands find its packages, and what the user should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub variables: BTreeMap<String, String>,
    pub notes: Vec<String>,
}

/// The environments that a project can declare, and what to do when one is not there.
const DECLARATIONS: &[(&str, &str)] = &[
    ("uv_env", "run `uv sync` in the project, and its .venv is used"),
    ("python_env", "make a .venv in the project with what it lists, and it is used"),
    ("renv_env", "run `renv::restore()` in the project, and its renv is used"),
    ("conda_env", "start the service from the activated environment"),
    ("docker_env", "start the service in that image, or install what it has"),
];

/// Looks for `.venv` and `renv` in `root`. `declared` are the project's own hints (`uv_env`,
/// `docker_env`, …) with their values; `search_path` is the `PATH` that commands inherit.
pub fn detect(
    root: &Path,
    declared: &[(String, String)],
    search_path: Option<&OsStr>,
) -> Environment {
    let mut environment = Environment::default();
    let python = python(root, search_path, &mut environment);
    let renv = renv(root, &mut environment.variables);
    for (key, value) in declared {
        let satisfied = match key.as_str() {
            "uv_env" | "python_env" => python,
            "renv_env" => renv,
            // Either kind of local environment may stand in for an image or a conda environment.
            _ => python || renv,
        };
        if satisfied {
            continue;
        }
        let advice = DECLARATIONS
            .iter()
            .find_map(|(name, advice)| (name == key).then_some(*advice))
            .unwrap_or("make sure that the commands find what they need");
        let note = format!(
            "{key} ({value}) is declared, and the commands run with what this machine has; {advice}"
        );
        environment.notes.push(note);
    }
    environment
}

fn python(root: &Path, search_path: Option<&OsStr>, environment: &mut Environment) -> bool {
    let venv = root.join(".venv");
    if !venv.is_dir() {
        return false;
    }
    let bin = venv.join("bin");
    if !bin.join("python").exists() {
        environment.notes.push(
            ".venv has no bin/python and is not used; make it anew with `python3 -m venv .venv`"
                .to_owned(),
        );
        return false;
    }
    let directories = search_path.map(std::env::split_paths).into_iter().flatten();
    let joined = std::env::join_paths(std::iter::once(bin).chain(directories));
    let (Some(path), Some(venv)) = (joined.ok().and_then(text), text(venv.into_os_string())) else {
        environment.notes.push(
            ".venv is not used: its path has characters that environment variables cannot carry"
                .to_owned(),
        );
        return false;
    };
    environment.variables.extend([
        ("PATH".to_owned(), path),
        ("VIRTUAL_ENV".to_owned(), venv.clone()),
        // `uv run` in a copy of the project would otherwise build an environment for each run.
        ("UV_PROJECT_ENVIRONMENT".to_owned(), venv),
        ("UV_NO_SYNC".to_owned(), "1".to_owned()),
    ]);
    true
}

fn renv(root: &Path, variables: &mut BTreeMap<String, String>) -> bool {
    let activate = root.join("renv").join("activate.R");
    if !activate.is_file() {
        return false;
    }
    let (Some(project), Some(activate)) = (path_text(root), path_text(&activate)) else {
        return false;
    };
    // Without it renv takes the copy that a run works in for the project, and finds no library.
    variables.insert("RENV_PROJECT".to_owned(), project);
    if !root.join(".Rprofile").exists() {
        variables.insert("R_PROFILE_USER".to_owned(), activate);
    }
    true
}

fn path_text(path: &Path) -> Option<String> {
    text(PathBuf::from(path).into_os_string())
}

fn text(value: OsString) -> Option<String> {
    value.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        root
    }

    fn declared(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_venv_beside_the_project_comes_first_on_the_path() {
        let root = project(&[".venv/bin/python"]);
        let found = detect(
            root.path(),
            &declared("uv_env", "pyproject.toml"),
            Some("/usr/bin:/bin".as_ref()),
        );
        let venv = root.path().join(".venv").display().to_string();
        assert_eq!(found.variables["PATH"], format!("{venv}/bin:/usr/bin:/bin"));
        assert_eq!(found.variables["VIRTUAL_ENV"], venv);
        assert_eq!(found.notes, Vec::<String>::new());
    }

    #[test]
    fn an_renv_beside_the_project_is_activated_in_every_run() {
        let root = project(&["renv/activate.R"]);
        let found = detect(root.path(), &declared("renv_env", "renv.lock"), None);
        let variables: Vec<&str> = found.variables.keys().map(String::as_str).collect();
        assert_eq!(variables, ["RENV_PROJECT", "R_PROFILE_USER"]);
        assert_eq!(found.notes, Vec::<String>::new());

        fs_err::write(root.path().join(".Rprofile"), "source('renv/activate.R')").unwrap();
        let found = detect(root.path(), &[], None);
        assert_eq!(found.variables.keys().collect::<Vec<_>>(), ["RENV_PROJECT"]);
    }

    #[test]
    fn a_declared_environment_that_is_not_there_is_noted() {
        let root = project(&[]);
        let found = detect(root.path(), &declared("docker_env", "example/image:1"), None);
        assert!(found.variables.is_empty());
        assert_eq!(
            found.notes,
            ["docker_env (example/image:1) is declared, and the commands run with what this \
              machine has; start the service in that image, or install what it has"]
        );
    }

    #[test]
    fn a_broken_venv_is_not_used_but_noted() {
        let root = project(&[".venv/pyvenv.cfg"]);
        let found = detect(root.path(), &[], None);
        assert!(found.variables.is_empty());
        assert_eq!(found.notes.len(), 1);
    }
}
