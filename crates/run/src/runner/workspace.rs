//! Where the files of a run are: in a directory, for scripts, or in memory, for code that does not
//! look at files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use modelyard_kernel::background::LARGE;
use parking_lot::Mutex;

use super::{
    Archive, ArchiveLimits, RunError, archive, blocking,
    directory::{Directory, Swept},
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
            Place::Directory(it) => {
                let file = it.files().join(name);
                blocking(move || match fs_err::read(file) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    read => Ok(Some(read?.into())),
                })
                .await
            }
            Place::Memory { files, .. } => Ok(files.lock().get(name).cloned()),
        }
    }

    /// Copies a project into the directory, see [`Directory::copy_project`].
    pub async fn copy_project(&self, project: &Path, skip: &[PathBuf]) -> Result<(), RunError> {
        self.directory()?.copy_project(project, skip).await
    }

    /// Packs all files of the workspace and removes it, also when it cannot be packed.
    pub async fn into_archive(self, limits: ArchiveLimits) -> Result<Archive, RunError> {
        match self.0 {
            Place::Directory(it) => it.into_archive(limits).await,
            Place::Memory { files, scratch } => {
                let files = files.into_inner();
                let size: usize = files.values().map(Bytes::len).sum();
                let pack = move || archive::pack(&files, &scratch, limits);
                if size > LARGE { blocking(pack).await } else { pack() }
            }
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

    /// Removes what a crashed server left under `root`, see [`Directory::sweep`]. Blocks; for the
    /// start.
    pub fn sweep(root: &Path) -> io::Result<Swept> {
        Directory::sweep(root)
    }
}
