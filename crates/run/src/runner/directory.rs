//! The directory that a run works in, which also remembers the run across a crash of the server.
//!
//! ```text
//! ROOT/train-x7Kd2q/     what MODELYARD_WORKSPACE says in the script's environment; when it is
//!                        found again by its job, `job-ID-x7Kd2q`
//!   lock                 locked as long as the server that made it lives
//!   process              the leader of the running script's process group
//!   progress             what the script tells while it runs
//!   checkpoints/         what the next attempt can go on from
//!   aside-NAME           what belongs to the run and is no file of its
//!   kept                 there when `files/` is worth more than the time it takes to make it anew
//!   files/               what the script works with, and what becomes the artifact
//! ```

use std::{
    fs::{Permissions, TryLockError},
    io, mem,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use modelyard_kernel::{Ulid, background::on_a_thread};

use super::{
    Archive, ArchiveLimits, RunError, archive, blocking, checkpoint, copy,
    procfs::{Identity, boot_id, kill_marked},
};

/// What the names of workspaces begin with that are found again by their job.
const KEYED: &str = "job";

/// A directory of its own for one run, readable by its owner only. It goes away when dropped,
/// together with every process that was started from it and still runs.
#[derive(Debug)]
pub struct Directory {
    directory: PathBuf,
    files: PathBuf,
    /// The job by which it is found again.
    key: Option<Ulid>,
    /// Whether it stays when dropped.
    kept: AtomicBool,
    /// Given up by the system when the server ends, however it ends.
    _lock: fs_err::File,
}

/// What [`Directory::sweep`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Those that were removed.
    pub workspaces: usize,
    /// Those that were left for their jobs.
    pub kept: usize,
    /// Process groups and stray processes.
    pub killed: usize,
}

/// A workspace that was kept for its job, whoever has it now.
#[derive(Debug)]
pub struct Kept {
    /// The job.
    pub job: Ulid,
    directory: PathBuf,
}

impl Kept {
    /// Removes it, unless somebody has it, and says so. Blocks.
    pub fn remove(self) -> io::Result<bool> {
        let Some(_lock) = lock(&self.directory) else { return Ok(false) };
        remove(&self.directory)?;
        Ok(true)
    }
}

impl Directory {
    /// Makes a workspace under `root`, which is made as well if missing. `stage` is the beginning
    /// of its name, for people who look. Blocks.
    pub fn create(root: &Path, stage: &str) -> Result<Self, RunError> {
        Self::named(root, stage, None)
    }

    /// As [`Directory::create`], but found again by [`Directory::resume`]. Whatever an earlier
    /// attempt left is removed.
    ///
    /// Each attempt has a name of its own, so the removal of the one before, and of the processes
    /// that are known by its name, cannot meet the next.
    pub fn create_keyed(root: &Path, key: Ulid) -> Result<Self, RunError> {
        for directory in of_job(root, key)? {
            if let Some(_lock) = lock(&directory)
                && let Err(error) = remove(&directory)
            {
                tracing::warn!(%error, "a workspace is left for the next start to remove");
            }
        }
        Self::named(root, &format!("{KEYED}-{key}"), Some(key))
    }

    fn named(root: &Path, prefix: &str, key: Option<Ulid>) -> Result<Self, RunError> {
        // Scripts run elsewhere than the server, so a relative path would mislead them.
        let root = match fs_err::canonicalize(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs_err::create_dir_all(root)?;
                fs_err::canonicalize(root)?
            }
            root => root?,
        };
        let directory = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&root)
            .map_err(RunError::io(format!("cannot make a workspace in {}", root.display())))?;
        let lock = fs_err::File::create(directory.path().join("lock"))?;
        lock.lock()?;
        let files = directory.path().join("files");
        fs_err::create_dir(&files)?;
        let kept = AtomicBool::new(false);
        Ok(Self { directory: directory.keep(), files, key, kept, _lock: lock })
    }

    /// Opens what [`Directory::keep`] kept, if it is there and nobody else has it. Processes that
    /// still run there are ended. Blocks.
    ///
    /// Files are not flushed to the disk, so after a start of the machine they are not trusted.
    pub fn resume(root: &Path, key: Ulid) -> Result<Option<Self>, RunError> {
        for directory in of_job(root, key)? {
            let files = directory.join("files");
            let Some(lock) = lock(&directory) else { continue };
            if !is_kept(&directory) || !files.is_dir() {
                continue;
            }
            end_processes(&directory);
            let kept = AtomicBool::new(true);
            return Ok(Some(Self { directory, files, key: Some(key), kept, _lock: lock }));
        }
        Ok(None)
    }

    /// From now on the directory stays when this is dropped or the server ends, until it is
    /// removed. What still runs in it is ended first, so that its files stay as they are. One
    /// that has no job cannot be found again, and so is not kept.
    pub async fn keep(&self) -> Result<(), RunError> {
        if self.key.is_none() {
            return Ok(());
        }
        let directory = self.directory.clone();
        blocking(move || {
            end_known_processes(&directory);
            Ok(fs_err::write(directory.join("kept"), boot_id().unwrap_or_default())?)
        })
        .await?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
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

    /// A file beside those of the run.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.directory.join(format!("aside-{name}"))
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

    /// Packs all files of the workspace, which stays.
    pub async fn archive(&self, limits: ArchiveLimits) -> Result<Archive, RunError> {
        let (directory, files) = (self.directory.clone(), self.files.clone());
        blocking(move || archive::write(&files, &directory, limits)).await
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

    /// Those under `root` that were kept. Blocks.
    pub fn kept(root: &Path) -> io::Result<Vec<Kept>> {
        let root = match fs_err::canonicalize(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            root => root?,
        };
        let mut kept = Vec::new();
        for entry in fs_err::read_dir(root)? {
            let directory = entry?.path();
            if let Some(job) = key_of(&directory)
                && directory.join("kept").exists()
            {
                kept.push(Kept { job, directory });
            }
        }
        Ok(kept)
    }

    /// Removes the workspaces a crashed server left under `root`, and kills the processes still
    /// running in them. Workspaces of a server that is alive stay, and so do those that were kept
    /// and whose job `keep` wants. Blocks; for the start.
    pub fn sweep(root: &Path, keep: impl Fn(Ulid) -> bool) -> io::Result<Swept> {
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
            swept.killed += end_processes(&directory);
            if key_of(&directory).is_some_and(&keep) && is_kept(&directory) {
                swept.kept += 1;
                continue;
            }
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
        let kept = *self.kept.get_mut();
        let remove = move || {
            if kept {
                end_known_processes(&directory);
            } else if let Err(error) = remove(&directory) {
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

/// Takes the workspace over, unless someone has it.
fn lock(directory: &Path) -> Option<fs_err::File> {
    let lock = fs_err::File::open(directory.join("lock")).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

/// The job that a workspace can be found by.
fn key_of(directory: &Path) -> Option<Ulid> {
    let name = directory.file_name()?.to_str()?.strip_prefix(KEYED)?.strip_prefix('-')?;
    Ulid::read(name.split('-').next()?)
}

/// Every workspace of a job. Mostly there is one at most, but for one that is being removed.
fn of_job(root: &Path, key: Ulid) -> io::Result<Vec<PathBuf>> {
    // As a script knows it, since that is what its processes are found by.
    let root = match fs_err::canonicalize(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        root => root?,
    };
    let mut found = Vec::new();
    for entry in fs_err::read_dir(root)? {
        let directory = entry?.path();
        if key_of(&directory) == Some(key) {
            found.push(directory);
        }
    }
    Ok(found)
}

/// Whether its files are worth keeping, and still what they were.
fn is_kept(directory: &Path) -> bool {
    fs_err::read_to_string(directory.join("kept"))
        .is_ok_and(|boot| boot == boot_id().unwrap_or_default())
}

/// Ends what still runs there, and says how much that was.
fn end_processes(directory: &Path) -> usize {
    let record = fs_err::read_to_string(directory.join("process")).unwrap_or_default();
    let leader = Identity::parse(&record);
    usize::from(leader.is_some_and(|it| it.kill_group())) + kill_marked(directory)
}

/// Ends what still runs of the scripts that ended.
fn end_known_processes(directory: &Path) {
    // Without a record no script ever ran here, and looking at every process costs more than the
    // rest of a short run.
    if directory.join("process").exists() {
        end_processes(directory);
    }
}

/// Ends what still runs there, then removes everything.
fn remove(directory: &Path) -> io::Result<()> {
    end_known_processes(directory);
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
