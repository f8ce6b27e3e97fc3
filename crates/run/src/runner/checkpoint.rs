//! Checkpoints: what a script wrote and said that it is complete, so that the next attempt can go
//! on from it.

use std::{
    fmt, io,
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

/// A time of the file system, in seconds and nanoseconds.
pub type FileTime = (i64, i64);

/// A checkpoint as it was when its script said that it is complete.
#[derive(Debug)]
pub struct Announced {
    pub name: CheckpointName,
    seen: Result<Vec<Seen>, String>,
}

impl Announced {
    /// Looks at a checkpoint that was announced at `time` at the latest. Blocks.
    ///
    /// It may be packed much later, so what it was like must be known from the beginning.
    pub fn look(checkpoints: &Path, name: CheckpointName, time: FileTime) -> Self {
        let seen = look(&checkpoints.join(name.as_str())).and_then(|(seen, changed)| {
            // Also by removing something from it.
            if changed > time { Err(CHANGED.to_owned()) } else { Ok(seen) }
        });
        Self { name, seen }
    }

    /// Packs it while its script runs on, or says why not. Blocks.
    ///
    /// It is held by other names first, so that the script may remove it, or put another in its
    /// place, while it is packed. Only writing into the same file would tear it, so everything is
    /// looked at again afterwards.
    pub fn pack(
        self,
        checkpoints: &Path,
        scratch: &Path,
        limits: ArchiveLimits,
    ) -> Result<Archive, String> {
        let Self { name, seen } = self;
        let (before, entry) = (seen?, checkpoints.join(name.as_str()));
        // What is written from now on does not have the time of anything that was seen.
        std::thread::sleep(TICK);
        let hold = scratch.join("taking");
        let held = hold_by_other_names(&before, &entry, &hold, name.as_str());
        // Some file systems have no second names.
        let packed_from = if held.is_ok() { &hold } else { checkpoints };
        let packed_entry = packed_from.join(name.as_str());
        let is_as_before = || look(&packed_entry).is_ok_and(|(now, _)| now == before);
        let packed = is_as_before()
            .then(|| archive::write_entry(packed_from, &packed_entry, scratch, limits))
            .filter(|_| is_as_before());
        let _best_effort = fs_err::remove_dir_all(&hold);
        let packed = packed.ok_or(CHANGED)?;
        packed.map_err(|error| match error {
            RunError::Io { cause, .. } => cause.kind().to_string(),
            error => error.to_string(),
        })
    }
}

const CHANGED: &str = "it changed after it was announced";

/// A part of a checkpoint as it was, by its path in it.
#[derive(Debug, PartialEq)]
struct Seen {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, PartialEq)]
enum Content {
    Directory,
    File { inode: u64, size: u64, written: FileTime },
}

/// All parts of a checkpoint, and when the last of them was written to.
fn look(entry: &Path) -> Result<(Vec<Seen>, FileTime), String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        kind => kind.to_string(),
    };
    let (mut seen, mut changed) = (Vec::new(), (0, 0));
    for part in WalkDir::new(entry).follow_root_links(false).sort_by_file_name() {
        let part = part.map_err(|error| unreadable(error.into()))?;
        let metadata = part.metadata().map_err(|error| unreadable(error.into()))?;
        let written = (metadata.mtime(), metadata.mtime_nsec());
        let content = if metadata.is_dir() {
            Content::Directory
        } else if metadata.is_file() {
            Content::File { inode: metadata.ino(), size: metadata.size(), written }
        } else {
            return Err("it has links, or what is neither a file nor a directory".to_owned());
        };
        let path = part.path().strip_prefix(entry).unwrap_or(part.path()).to_owned();
        if path.to_str().is_none() {
            return Err("it has files whose names are not text".to_owned());
        }
        changed = changed.max(written);
        seen.push(Seen { path, content });
    }
    Ok((seen, changed))
}

/// Gives the files of a checkpoint second names, in a directory that is made anew.
fn hold_by_other_names(seen: &[Seen], entry: &Path, hold: &Path, name: &str) -> io::Result<()> {
    match fs_err::remove_dir_all(hold) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs_err::create_dir(hold)?,
    }
    let held = hold.join(name);
    for Seen { path, content } in seen {
        // Joined to nothing, a path would end in a slash.
        let [from, to] = match path.as_os_str().is_empty() {
            true => [entry.to_owned(), held.clone()],
            false => [entry.join(path), held.join(path)],
        };
        match content {
            Content::Directory => fs_err::create_dir(to)?,
            Content::File { .. } => fs_err::hard_link(from, to)?,
        }
    }
    Ok(())
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
