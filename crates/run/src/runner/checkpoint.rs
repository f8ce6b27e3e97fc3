//! Checkpoints: what a script wrote and said that it is complete, so that the next attempt can go
//! on from it.

use std::{
    fmt, fs, io,
    io::{Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use walkdir::WalkDir;

use super::{Archive, ArchiveLimits, RunError, archive};

/// No name is longer: with its ending it must still be one of a file.
const LONGEST_NAME: usize = 200;

/// Longer than the clock of any file system takes for a tick: whatever is written after such a
/// pause has a time of its own.
const TICK: Duration = Duration::from_millis(20);

/// How often one that changes meanwhile is tried.
const TRIES: usize = 2;

/// The name of a file or directory right in the directory of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointName(String);

impl CheckpointName {
    /// Reads a name that a script wrote.
    pub fn read(name: &str) -> Result<Self, String> {
        let is_plain = !name.starts_with('.') && !name.contains(['/', '\\']);
        if name.is_empty() || !is_plain || name.contains(char::is_control) {
            let start: String = name.escape_debug().take(LONGEST_NAME).collect();
            return Err(format!("`{start}` is no name of a checkpoint"));
        }
        if name.len() > LONGEST_NAME {
            return Err(format!("names of checkpoints have at most {LONGEST_NAME} bytes"));
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Packs one checkpoint while its script runs on, or says why not. Blocks.
///
/// One that changes while it is read would be torn, so it is looked at before and after. A link
/// that leads out of it could not be followed later, so it is refused and not left out.
pub fn pack(
    checkpoints: &Path,
    name: &CheckpointName,
    scratch: &Path,
    limits: ArchiveLimits,
) -> Result<Archive, String> {
    let entry = checkpoints.join(name.as_str());
    for _ in 0..TRIES {
        let before = look(&entry)?;
        // What is written from now on does not have the time of anything that was seen.
        std::thread::sleep(TICK);
        let packed = archive::write_entry(checkpoints, &entry, scratch, limits);
        if look(&entry).is_ok_and(|after| after == before) {
            return packed.map_err(|error| match error {
                RunError::Io { cause, .. } => cause.kind().to_string(),
                error => error.to_string(),
            });
        }
    }
    Err("it changed while it was read".to_owned())
}

/// A file as it was, without its content.
#[derive(PartialEq)]
struct Seen {
    path: PathBuf,
    inode: u64,
    size: u64,
    /// Of content and of everything else, with nanoseconds.
    times: [i64; 4],
}

fn look(entry: &Path) -> Result<Vec<Seen>, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        kind => kind.to_string(),
    };
    let metadata = fs::symlink_metadata(entry).map_err(unreadable)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err("it is neither a file nor a directory".to_owned());
    }
    let real = entry.canonicalize().map_err(unreadable)?;
    let mut seen = Vec::new();
    for file in WalkDir::new(entry).sort_by_file_name() {
        let file = file.map_err(|error| unreadable(error.into()))?;
        let kind = file.file_type();
        let is_inside = || {
            let target = file.path().canonicalize().ok();
            target.is_some_and(|it| it.starts_with(&real) && it.is_file())
        };
        let can_be_packed = kind.is_file() || kind.is_dir() || kind.is_symlink() && is_inside();
        if !can_be_packed {
            return Err("it has links that lead out of it, or what is no file".to_owned());
        }
        if file.path().to_str().is_none() {
            return Err("it has files whose names are not text".to_owned());
        }
        let metadata = file.metadata().map_err(|error| unreadable(error.into()))?;
        seen.push(Seen {
            path: file.into_path(),
            inode: metadata.ino(),
            size: metadata.size(),
            times: [
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ],
        });
    }
    Ok(seen)
}

/// Makes a directory of checkpoints hold this one and nothing else; when that fails, nothing at
/// all. Blocks.
pub fn restore(
    checkpoints: &Path,
    name: &str,
    archive: impl Read + Seek,
    limits: ArchiveLimits,
) -> Result<(), RunError> {
    clear(checkpoints)?;
    let restored = archive::extract(archive, checkpoints, limits).and_then(|()| {
        let only = only_entry(checkpoints)?;
        match only.and_then(|it| it.file_name()?.to_str().map(|it| it == name)) {
            Some(true) => Ok(()),
            _ => Err(RunError::Archive(format!("it is not the checkpoint `{name}`"))),
        }
    });
    if restored.is_err() {
        clear(checkpoints)?;
    }
    restored
}

/// What is in a directory if it is one thing.
pub fn only_entry(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut entries = fs_err::read_dir(directory)?;
    let first = entries.next().transpose()?.map(|it| it.path());
    Ok(first.filter(|_| entries.next().is_none()))
}

fn clear(directory: &Path) -> Result<(), RunError> {
    match fs_err::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(fs_err::create_dir(directory)?)
}
