//! The directory that a run works in, which also remembers the run across a crash of the server.
//!
//! ```text
//! ROOT/train-x7Kd2q/     what MODELYARD_WORKSPACE says in the script's environment
//!   lock                 locked as long as the server that made it lives
//!   process              the leader of the running script's process group
//!   progress             what the script tells while it runs
//!   checkpoints/         what the next attempt can go on from
//!   files/               what the script works with, and what becomes the artifact
//! ```

use std::{
    fs::{Permissions, TryLockError},
    io, mem,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use modelyard_kernel::background::on_a_thread;

use super::{
    Archive, ArchiveLimits, RunError, archive, blocking, checkpoint, copy,
    procfs::{Identity, kill_marked},
};

/// A directory of its own for one run, readable by its owner only. It goes away when dropped,
/// together with every process that was started from it and still runs.
#[derive(Debug)]
pub struct Directory {
    directory: PathBuf,
    files: PathBuf,
    /// Given up by the system when the server ends, however it ends.
    _lock: fs_err::File,
}

/// What [`Directory::sweep`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub workspaces: usize,
    /// Process groups and stray processes.
    pub killed: usize,
}

impl Directory {
    /// Makes a workspace under `root`, which is made as well if missing. `stage` is the beginning
    /// of its name, for people who look. Blocks.
    pub fn create(root: &Path, stage: &str) -> Result<Self, RunError> {
        // Scripts run elsewhere than the server, so a relative path would mislead them.
        let root = match fs_err::canonicalize(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs_err::create_dir_all(root)?;
                fs_err::canonicalize(root)?
            }
            root => root?,
        };
        let directory = tempfile::Builder::new()
            .prefix(&format!("{stage}-"))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&root)
            .map_err(RunError::io(format!("cannot make a workspace in {}", root.display())))?;
        let lock = fs_err::File::create(directory.path().join("lock"))?;
        lock.lock()?;
        let files = directory.path().join("files");
        fs_err::create_dir(&files)?;
        Ok(Self { directory: directory.keep(), files, _lock: lock })
    }

    /// Where the files of the run are: the working directory of scripts.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// The whole of the workspace, with our own notes.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    pub fn process_file(&self) -> PathBuf {
        self.directory.join("process")
    }

    pub fn progress_file(&self) -> PathBuf {
        self.directory.join("progress")
    }

    /// Made when it is needed.
    pub fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }

    /// Puts a checkpoint where the script will look for it.
    pub async fn restore<R: io::Read + io::Seek + Send + 'static>(
        &self,
        name: &str,
        archive: R,
        limits: ArchiveLimits,
    ) -> Result<(), RunError> {
        let (checkpoints, name) = (self.checkpoints(), name.to_owned());
        blocking(move || checkpoint::restore(&checkpoints, &name, archive, limits)).await
    }

    /// Copies a project into the workspace, without what only its author needs: virtual
    /// environments, caches, repositories, databases. Links that lead out of the project are
    /// left out, and so is every directory in `skip`.
    pub async fn copy_project(&self, project: &Path, skip: &[PathBuf]) -> Result<(), RunError> {
        let mut skip = skip.to_vec();
        // The project may well hold the data directory of its own service.
        skip.extend(self.directory.parent().map(Path::to_owned));
        let (project, files) = (project.to_owned(), self.files.clone());
        blocking(move || copy::project(&project, &files, &skip)).await
    }

    /// Packs all files of the workspace and removes it, also when it cannot be packed.
    pub async fn into_archive(mut self, limits: ArchiveLimits) -> Result<Archive, RunError> {
        let (directory, files) = (mem::take(&mut self.directory), mem::take(&mut self.files));
        blocking(move || {
            let packed = archive::write(&files, &directory, limits);
            if let Err(error) = remove(&directory) {
                tracing::warn!(%error, "a workspace is left for the next start to remove");
            }
            packed
        })
        .await
    }

    /// Removes the workspace now; what cannot be removed is left for the next start. Dropping it
    /// does the same, but later.
    pub async fn remove(mut self) {
        let directory = mem::take(&mut self.directory);
        let removed = blocking(move || Ok(remove(&directory)?)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "a workspace is left for the next start to remove");
        }
    }

    /// Removes the workspaces a crashed server left under `root`, and kills the processes still
    /// running in them. Workspaces of a server that is alive stay. Blocks; for the start.
    pub fn sweep(root: &Path) -> io::Result<Swept> {
        let mut swept = Swept::default();
        let root = match fs_err::canonicalize(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(swept),
            root => root?,
        };
        for entry in fs_err::read_dir(root)? {
            let directory = entry?.path();
            if !directory.is_dir() || is_locked(&directory.join("lock")) {
                continue;
            }
            let record = fs_err::read_to_string(directory.join("process")).unwrap_or_default();
            if let Some(leader) = Identity::parse(&record) {
                swept.killed += usize::from(leader.kill_group());
            }
            swept.killed += kill_marked(&directory);
            remove(&directory)?;
            swept.workspaces += 1;
        }
        Ok(swept)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let directory = mem::take(&mut self.directory);
        if directory.as_os_str().is_empty() {
            return;
        }
        let remove = move || {
            if let Err(error) = remove(&directory) {
                tracing::warn!(%error, "a workspace could not be removed");
            }
        };
        // A large tree takes long to remove, and drops happen on the threads of everybody. What a
        // shutdown cuts off here, the next start sweeps.
        match tokio::runtime::Handle::try_current() {
            Ok(_) => drop(on_a_thread(remove)),
            Err(_) => remove(),
        }
    }
}

fn is_locked(lock: &Path) -> bool {
    fs_err::File::open(lock)
        .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Ends what still runs there, then removes everything.
fn remove(directory: &Path) -> io::Result<()> {
    // Without a record no script ever ran here, and looking at every process costs more than the
    // rest of a short run.
    if directory.join("process").exists() {
        kill_marked(directory);
    }
    let mut result = fs_err::remove_dir_all(directory);
    for _ in 0..3 {
        if result.is_ok() {
            break;
        }
        // Either a script made directories nobody may write to, or one of its processes is still
        // dying and wrote a last file.
        open_up(directory);
        std::thread::sleep(Duration::from_millis(20));
        result = fs_err::remove_dir_all(directory);
    }
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_up(directory: &Path) {
    let _ = fs_err::set_permissions(directory, Permissions::from_mode(0o700));
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
