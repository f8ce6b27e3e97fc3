//! Copying a project into a workspace.

use std::{
    ffi::OsStr,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::RunError;

/// What a run does not need, by name, wherever it is in the project. `*` only at the beginning or at
/// the end.
const EXCLUDED: [&str; 33] = [
    ".venv",
    "venv",
    "__pycache__",
    "*.pyc",
    "*.pyo",
    "*.egg-info",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    "node_modules",
    ".git",
    ".gitignore",
    ".vscode",
    ".idea",
    ".DS_Store",
    "build",
    "dist",
    "*.so",
    "*.dylib",
    "*.db",
    "*.db-wal",
    "*.db-shm",
    "*.db-journal",
    "*.sqlite",
    "*.sqlite-wal",
    "*.sqlite-shm",
    "*.sqlite-journal",
    "*.sqlite3",
    "*.sqlite3-wal",
    "*.sqlite3-shm",
    "*.sqlite3-journal",
    // Ours: the data directory of the service, and what a Rust project builds.
    ".modelyard",
    "target",
];

/// Where keys and passwords are kept, by name, wherever it is in the project. A workspace becomes an
/// artifact, which clients download.
const SECRET: [&str; 12] = [
    // The settings of the service, with its keys; scripts are told what is theirs in `config.yml`.
    "modelyard.toml",
    ".env",
    ".env.*",
    ".envrc",
    ".ssh",
    ".netrc",
    ".pgpass",
    ".Renviron",
    ".aws",
    ".git-credentials",
    "*.pem",
    "*.key",
];

/// Copies files with their modes. Links inside the project stay links, links out of it are left
/// out, never followed. `skip` holds paths of files and directories.
pub fn project(project: &Path, target: &Path, skip: &[PathBuf]) -> Result<(), RunError> {
    let root = fs_err::canonicalize(project)?;
    let skip: Vec<PathBuf> = skip.iter().filter_map(|path| path.canonicalize().ok()).collect();
    Copy { root: &root, skip: &skip }.directory(&root, target)
}

struct Copy<'a> {
    root: &'a Path,
    skip: &'a [PathBuf],
}

impl Copy<'_> {
    fn directory(&self, from: &Path, to: &Path) -> Result<(), RunError> {
        for entry in fs_err::read_dir(from)? {
            let entry = entry?;
            let (name, from) = (entry.file_name(), entry.path());
            let to = to.join(&name);
            let kind = entry.file_type()?;
            if is_excluded(&name) || self.skip.contains(&from) {
                continue;
            }
            if kind.is_symlink() {
                self.link(&from, &to)?;
            } else if kind.is_dir() {
                // Even in a directory its author may only read, we have to make files.
                let mode = entry.metadata()?.permissions().mode() | 0o700;
                std::fs::DirBuilder::new()
                    .mode(mode)
                    .create(&to)
                    .map_err(RunError::io(format!("cannot make {}", to.display())))?;
                self.directory(&from, &to)?;
            } else if kind.is_file() {
                fs_err::copy(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Links that name their target from the root would lead back to the project itself, so all
    /// are made relative to where they are.
    fn link(&self, from: &Path, to: &Path) -> Result<(), RunError> {
        let inside = fs_err::canonicalize(from).ok();
        let inside = inside.as_deref().and_then(|target| target.strip_prefix(self.root).ok());
        let place = from.parent().and_then(|parent| parent.strip_prefix(self.root).ok());
        let (Some(inside), Some(place)) = (inside, place) else {
            tracing::warn!(link = %from.display(), "left out a link that leads out of the project");
            return Ok(());
        };
        let up: PathBuf = place.components().map(|_| "..").collect();
        let mut target = up.join(inside);
        if target.as_os_str().is_empty() {
            target.push(".");
        }
        symlink(target, to).map_err(RunError::io(format!("cannot make the link {}", to.display())))
    }
}

fn is_excluded(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    EXCLUDED.iter().chain(&SECRET).any(|pattern| {
        if let Some(ending) = pattern.strip_prefix('*') {
            return name.ends_with(ending.as_bytes());
        }
        match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning.as_bytes()),
            None => name == pattern.as_bytes(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use std::path::Path;

    use super::project;

    /// Every path below a directory, in order.
    fn names(directory: &Path) -> Vec<String> {
        let entries = walkdir::WalkDir::new(directory).min_depth(1).into_iter();
        let mut names: Vec<String> = entries
            .map(|it| it.unwrap().path().strip_prefix(directory).unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn keys_and_passwords_stay_where_they_are() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = from.path();
        let secret = [
            "modelyard.toml",
            "sub/modelyard.toml",
            ".env",
            ".env.production",
            "sub/.env",
            ".envrc",
            ".ssh/id_ed25519",
            ".netrc",
            ".pgpass",
            ".Renviron",
            ".aws/credentials",
            ".git-credentials",
            "certificate.pem",
            "sub/service.key",
            "secrets/keys",
            "other.toml",
        ];
        let plain = [".Rprofile", "environment.yml", "keys.csv", "monkey", "sub/train.py"];
        for file in secret.iter().chain(&plain) {
            let file = from.join(file);
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(file, "x").unwrap();
        }
        project(from, to.path(), &[from.join("secrets"), from.join("other.toml")]).unwrap();
        assert_eq!(
            names(to.path()),
            [".Rprofile", "environment.yml", "keys.csv", "monkey", "sub", "sub/train.py"]
        );
    }

    #[test]
    fn a_copy_has_what_a_run_needs_and_nothing_from_outside() {
        let (outside, from, to) = [(); 3].map(|()| tempfile::tempdir().unwrap()).into();
        fs_err::write(outside.path().join("secret"), "s").unwrap();
        let from = from.path();
        for directory in ["scripts", ".venv/bin", "data/work", ".modelyard", "sub/target"] {
            fs_err::create_dir_all(from.join(directory)).unwrap();
        }
        let files = ["scripts/train.py", ".venv/bin/python", "data/work/x", "a.db-wal", "main.py"];
        for file in files {
            fs_err::write(from.join(file), "x").unwrap();
        }
        let executable = std::fs::Permissions::from_mode(0o750);
        fs_err::set_permissions(from.join("scripts/train.py"), executable).unwrap();
        symlink("../main.py", from.join("scripts/inside")).unwrap();
        symlink(from.join("scripts"), from.join("sub/absolute")).unwrap();
        symlink(outside.path().join("secret"), from.join("outside")).unwrap();
        symlink("nowhere", from.join("broken")).unwrap();

        project(from, to.path(), &[from.join("data/work")]).unwrap();

        assert_eq!(
            names(to.path()),
            [
                "data",
                "main.py",
                "scripts",
                "scripts/inside",
                "scripts/train.py",
                "sub",
                "sub/absolute"
            ]
        );
        let mode =
            fs_err::metadata(to.path().join("scripts/train.py")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
        let link = fs_err::read_link(to.path().join("sub/absolute")).unwrap();
        assert_eq!(link.to_str(), Some("../scripts"));
    }
}
