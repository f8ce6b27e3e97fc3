//! The data directory: the embedded database, content, workspaces; one process at a time.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use modelyard_kernel::Clock;
use rustix::fs::{FlockOperation, flock};

/// A data directory, held by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node: String,
    /// The system lets go of the lock with the last handle, also when the process is killed.
    _lock: fs_err::File,
}

/// A data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written.
    #[error("the data directory cannot be used; see the setting `data.dir`")]
    Unusable(#[source] io::Error),
    /// Another process has it.
    #[error("another process uses the data directory {}; stop it, or give `--data-dir`", .0.display())]
    InUse(PathBuf),
}

impl DataDir {
    /// Opens a data directory, which is made when it does not exist, for this process alone.
    ///
    /// # Errors
    /// When it cannot be used, or another process uses it.
    pub fn open(path: &Path, clock: &Clock) -> Result<Self, DataDirError> {
        make(path).map_err(DataDirError::Unusable)?;
        let lock = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(DataDirError::Unusable)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DataDirError::InUse(path.to_owned()));
        }
        let node = read_node(&path.join("node"), clock).map_err(DataDirError::Unusable)?;
        Ok(Self { path: path.to_owned(), node, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the node whose directory this is, the same after a restart.
    pub fn node(&self) -> &str {
        &self.node
    }
}

/// Makes it for its owner only; one that is there stays as open as it is.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    fs_err::create_dir_all(path)?;
    if is_new {
        fs_err::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn read_node(path: &Path, clock: &Clock) -> io::Result<String> {
    match fs_err::read_to_string(path) {
        Ok(node) if !node.trim().is_empty() => return Ok(node.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let node = clock.ulid().to_string();
    fs_err::write(path, &node)?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let _held = DataDir::open(&path, &Clock::system()).unwrap();
        let mode = fs_err::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn one_process_at_a_time_and_the_same_node_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), &Clock::system()).unwrap();
        let node = first.node().to_owned();
        assert!(matches!(DataDir::open(dir.path(), &Clock::system()), Err(DataDirError::InUse(_))));
        drop(first);
        assert_eq!(DataDir::open(dir.path(), &Clock::system()).unwrap().node(), node);
    }
}
