//! Where the files of a run are: in a directory, for scripts, or in memory, for code that does not
//! look at files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use modelyard_kernel::{Ulid, background::LARGE};
use parking_lot::Mutex;

use super::{
    Archive, ArchiveLimits, RunError, archive, blocking,
    directory::{Directory, Kept, Swept},
    inputs,
};

/// Files by their names.
pub(crate) type Files = BTreeMap<String, Bytes>;

/// The files of one run; they go away when this is dropped.
#[derive(Debug)]
pub struct Workspace(Place);

#[derive(Debug)]
enum Place {
    Directory(Directory),
    Memory {
        files: Mutex<Files>,
        /// For what is too large for memory on its way to the store.
        scratch: PathBuf,
    },
}

impl Workspace {
    /// Makes a directory under `root`, which is made as well if missing. `stage` is the beginning
    /// of its name, for people who look. Blocks; see [`Run::begin`](super::Run::begin).
    pub fn create(root: &Path, stage: &str) -> Result<Self, RunError> {
        Ok(Self(Place::Directory(Directory::create(root, stage)?)))
    }

    /// As [`Workspace::create`], for a job that may go on with it after a crash. Whatever an
    /// earlier attempt of the job left is removed.
    pub fn create_keyed(root: &Path, key: Ulid) -> Result<Self, RunError> {
        Ok(Self(Place::Directory(Directory::create_keyed(root, key)?)))
    }

    /// What an earlier attempt of a job [kept](Workspace::keep), if it is there and nobody else
    /// has it. Blocks; see [`Run::resume`](super::Run::resume).
    pub fn resume(root: &Path, key: Ulid) -> Result<Option<Self>, RunError> {
        Ok(Directory::resume(root, key)?.map(|it| Self(Place::Directory(it))))
    }

    /// A workspace that exists in memory only; `scratch` is a directory for nameless files.
    pub fn in_memory(scratch: &Path) -> Self {
        Self(Place::Memory { files: Mutex::default(), scratch: scratch.to_owned() })
    }

    /// The working directory of scripts.
    ///
    /// # Errors
    /// When there is none, since the runner said that it needs none.
    pub fn path(&self) -> Result<&Path, RunError> {
        Ok(self.directory()?.files())
    }

    pub(crate) fn directory(&self) -> Result<&Directory, RunError> {
        match &self.0 {
            Place::Directory(it) => Ok(it),
            Place::Memory { .. } => Err(RunError::Io {
                doing: "a run without a directory was asked for it".to_owned(),
                cause: io::ErrorKind::Unsupported.into(),
            }),
        }
    }

    /// Stores files, over those of the same names.
    pub(crate) async fn put(&self, new: Vec<(&'static str, Bytes)>) -> Result<(), RunError> {
        match &self.0 {
            Place::Directory(it) => {
                let directory = it.files().to_owned();
                blocking(move || inputs::write(&directory, &new)).await
            }
            Place::Memory { files, .. } => {
                files.lock().extend(new.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
                Ok(())
            }
        }
    }

    /// The content of a file, if there is one.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>, RunError> {
        match &self.0 {
            Place::Directory(it) => read(it.files().join(name)).await,
            Place::Memory { files, .. } => Ok(files.lock().get(name).cloned()),
        }
    }

    /// Stores something that belongs to the run beside its files, where [`Workspace::aside`] finds it
    /// again also after a crash.
    pub async fn put_aside(&self, name: &'static str, content: Bytes) -> Result<(), RunError> {
        let file = self.directory()?.aside(name);
        blocking(move || Ok(fs_err::write(file, content)?)).await
    }

    /// What was [put aside](Workspace::put_aside) by this name, if anything was.
    pub async fn aside(&self, name: &'static str) -> Result<Option<Bytes>, RunError> {
        read(self.directory()?.aside(name)).await
    }

    /// Copies a project into the directory, see [`Directory::copy_project`].
    pub async fn copy_project(&self, project: &Path, skip: &[PathBuf]) -> Result<(), RunError> {
        self.directory()?.copy_project(project, skip).await
    }

    /// Packs all files of the workspace and removes it, also when it cannot be packed.
    pub async fn into_archive(self, limits: ArchiveLimits) -> Result<Archive, RunError> {
        match self.0 {
            Place::Directory(it) => it.into_archive(limits).await,
            Place::Memory { files, scratch } => pack(files.into_inner(), scratch, limits).await,
        }
    }

    /// Unpacks an archive of another workspace, of which the store says that it has `size` bytes.
    /// Refuses one that would write elsewhere, over existing files, or more than the limits allow.
    pub async fn extract<R: io::Read + io::Seek + Send + 'static>(
        &self,
        archive: R,
        size: u64,
        limits: ArchiveLimits,
    ) -> Result<(), RunError> {
        match &self.0 {
            Place::Directory(it) => {
                let files = it.files().to_owned();
                blocking(move || archive::extract(archive, &files, limits)).await
            }
            Place::Memory { files, .. } => {
                let unpack = move || archive::unpack(archive, limits);
                // What is small may still become large.
                let small = size <= LARGE as u64 / 16;
                let unpacked = if small { unpack() } else { blocking(unpack).await }?;
                let mut files = files.lock();
                for (name, content) in unpacked {
                    if files.insert(name.clone(), content).is_some() {
                        return Err(RunError::Archive(format!("{name:?} is there already")));
                    }
                }
                Ok(())
            }
        }
    }

    /// Makes the directory of checkpoints hold this one, which an earlier attempt left, and nothing
    /// else; when that fails, nothing at all, so that the script may still begin anew. For before
    /// the script.
    ///
    /// # Errors
    /// When the archive is damaged or of something else, or is over the limits.
    pub async fn restore_checkpoint<R: io::Read + io::Seek + Send + 'static>(
        &self,
        name: &str,
        archive: R,
        limits: ArchiveLimits,
    ) -> Result<(), RunError> {
        self.directory()?.restore(name, archive, limits).await
    }

    /// Removes the workspace now. Dropping it does the same, but later.
    pub async fn remove(self) {
        match self.0 {
            Place::Directory(it) => it.remove().await,
            Place::Memory { .. } => {}
        }
    }

    /// Packs all files of the workspace, which stays.
    pub async fn archive(&self, limits: ArchiveLimits) -> Result<Archive, RunError> {
        match &self.0 {
            Place::Directory(it) => it.archive(limits).await,
            Place::Memory { files, scratch } => {
                let (files, scratch) = (files.lock().clone(), scratch.clone());
                pack(files, scratch, limits).await
            }
        }
    }

    /// Says that the files are worth keeping: from now on they outlive this workspace, and also a
    /// crash of the server, until [`Run::resume`](super::Run::resume) finds them or they are
    /// removed. For when a script has ended. What it left running is ended.
    ///
    /// Only for those of [`Run::begin_kept`](super::Run::begin_kept) and of `resume`; others go
    /// away as ever.
    pub async fn keep(&self) -> Result<(), RunError> {
        match &self.0 {
            Place::Directory(it) => it.keep().await,
            Place::Memory { .. } => Ok(()),
        }
    }

    /// Those under `root` that were [kept](Workspace::keep), also for jobs that need them no more.
    /// Blocks.
    pub fn kept(root: &Path) -> io::Result<Vec<Kept>> {
        Directory::kept(root)
    }

    /// Removes what a crashed server left under `root`, but for what was kept for those jobs that
    /// `keep` wants. Blocks; for the start.
    pub fn sweep(root: &Path, keep: impl Fn(Ulid) -> bool) -> io::Result<Swept> {
        Directory::sweep(root, keep)
    }
}

/// The content of a file, if there is one.
async fn read(file: PathBuf) -> Result<Option<Bytes>, RunError> {
    blocking(move || match fs_err::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read?.into())),
    })
    .await
}

async fn pack(files: Files, scratch: PathBuf, limits: ArchiveLimits) -> Result<Archive, RunError> {
    let size: usize = files.values().map(Bytes::len).sum();
    let pack = move || archive::pack(&files, &scratch, limits);
    if size > LARGE { blocking(pack).await } else { pack() }
}
