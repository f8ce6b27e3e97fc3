//! Python interpreters, and virtual environments that are made once and kept under `target/`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Any Python 3.
pub fn any() -> Result<PathBuf> {
    ["python3", "python"]
        .into_iter()
        .map(PathBuf::from)
        .find(|it| version(it).is_some_and(|version| version.starts_with("3.")))
        .context("there is no Python 3 here: install one, so that `python3` is on PATH")
}

/// Python 3.13, which chap-core insists on: from PATH, pyenv, uv, or Debian where it has one.
pub fn version_3_13() -> Result<PathBuf> {
    let found = || candidates().into_iter().find(|it| version(it).as_deref() == Some("3.13"));
    if let Some(found) = found() {
        return Ok(found);
    }
    if shell::is_installed("apt-cache", &["show", "python3.13-venv"]) {
        let _ = shell::apt_install("python3.13-venv");
    }
    found().context(
        "there is no Python 3.13 here, which chap-core needs: install one, so that `python3.13` is \
         on PATH or pyenv has it, or leave chap-core out with --without-chap",
    )
}

fn candidates() -> Vec<PathBuf> {
    let mut candidates = vec![PathBuf::from("python3.13"), PathBuf::from("python3")];
    let home = env::home_dir().unwrap_or_default();
    let pyenv = env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    for versions in [pyenv.join("versions"), home.join(".local/share/uv/python")] {
        let entries = fs::read_dir(versions).into_iter().flatten().flatten();
        candidates.extend(entries.map(|entry| entry.path().join("bin/python3.13")));
    }
    candidates
}

/// `3.13`, or nothing when it does not run: a shim of pyenv may stand for a version that is not
/// chosen.
fn version(python: &Path) -> Option<String> {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A virtual environment with what `requirements` names, made anew when they or the interpreter
/// change.
#[derive(Debug, Clone)]
pub struct Environment {
    directory: PathBuf,
}

impl Environment {
    /// `directory` is ours alone; `requirements` is a file for `pip install -r`.
    pub fn prepare(directory: &Path, python: &Path, requirements: &Path) -> Result<Environment> {
        let environment = Environment { directory: directory.to_owned() };
        let text = fs::read_to_string(requirements)
            .with_context(|| format!("cannot read {}", requirements.display()))?;
        let stamp =
            format!("{}\n{}\n{text}", python.display(), version(python).unwrap_or_default());
        let stamp_file = directory.join("requirements.stamp");
        if fs::read_to_string(&stamp_file).is_ok_and(|made_from| made_from == stamp) {
            return Ok(environment);
        }

        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        make(python, directory)?;
        let mut install = Command::new(environment.program("python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        shell::run(install.arg(requirements))?;
        fs::write(&stamp_file, stamp)
            .with_context(|| format!("cannot write {}", stamp_file.display()))?;
        Ok(environment)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }
}

/// Debian ships `venv` apart from Python.
fn make(python: &Path, directory: &Path) -> Result<()> {
    let venv = || {
        let output = Command::new(python).args(["-m", "venv"]).arg(directory).output()?;
        if !output.status.success() {
            bail!("`python -m venv` failed:\n{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    };
    venv().or_else(|failure| {
        shell::apt_install("python3-venv").map_err(|_| failure)?;
        venv()
    })
}
