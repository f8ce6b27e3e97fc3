//! Workspaces as ZIP files: the content of training and prediction artifacts.

use std::{
    fs::{File, Permissions},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use tempfile::{SpooledData, SpooledTempFile};
use walkdir::WalkDir;
use zip::{CompressionMethod, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{ArchiveLimits, RunError, workspace::Files};

/// An archive up to this size needs no file on its way to the store.
const IN_MEMORY: usize = 4 << 20;

/// A finished archive.
#[derive(Debug)]
pub enum Archive {
    Memory(Bytes),
    /// Open at its beginning; it has no name, and goes away when closed.
    File(File),
}

/// Packs what is below `files`, sorted by path, with fixed dates, so that equal workspaces give
/// equal archives. A large one is written to a nameless file in `scratch`.
///
/// A link to a file of the workspace is stored as the content of that file. Other links and
/// anything that is not a file or a directory are left out; a directory is stored if it is empty.
pub fn write(files: &Path, scratch: &Path, limits: ArchiveLimits) -> Result<Archive, RunError> {
    write_entries(files, WalkDir::new(files).min_depth(1), scratch, limits)
}

/// As [`write()`], but only one file or directory of those in `files`.
pub fn write_entry(
    files: &Path,
    entry: &Path,
    scratch: &Path,
    limits: ArchiveLimits,
) -> Result<Archive, RunError> {
    write_entries(files, WalkDir::new(entry).follow_root_links(false), scratch, limits)
}

fn write_entries(
    files: &Path,
    entries: WalkDir,
    scratch: &Path,
    limits: ArchiveLimits,
) -> Result<Archive, RunError> {
    let mut packer = Packer::new(scratch, limits);
    for entry in entries.sort_by_file_name() {
        let entry = entry.map_err(|error| RunError::from(io::Error::from(error)))?;
        let Some(name) = entry.path().strip_prefix(files).ok().and_then(Path::to_str) else {
            tracing::warn!(file = %entry.path().display(), "left out a file whose name is not text");
            continue;
        };
        if entry.file_type().is_dir() {
            if fs_err::read_dir(entry.path())?.next().is_none() {
                packer.directory(name)?;
            }
            continue;
        }
        let file = if entry.file_type().is_file() {
            Some(fs_err::File::open(entry.path())?)
        } else {
            open_inside(files, entry.path())?
        };
        let Some(mut file) = file else { continue };
        let metadata = file.metadata()?;
        packer.file(name, metadata.permissions().mode() & 0o777, metadata.len(), &mut file)?;
    }
    packer.finish()
}

/// Packs files that are in memory, as [`write()`] does those of a directory.
pub fn pack(files: &Files, scratch: &Path, limits: ArchiveLimits) -> Result<Archive, RunError> {
    let mut packer = Packer::new(scratch, limits);
    for (name, content) in files {
        packer.file(name, 0o644, content.len() as u64, &mut content.as_ref())?;
    }
    packer.finish()
}

/// An archive that is being written, in memory while it is small.
struct Packer {
    zip: ZipWriter<BufWriter<SpooledTempFile>>,
    options: SimpleFileOptions,
    budget: Budget,
}

impl Packer {
    fn new(scratch: &Path, limits: ArchiveLimits) -> Self {
        let spool = tempfile::spooled_tempfile_in(IN_MEMORY, scratch);
        // A higher level takes several times as long for a few percent.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(2));
        Self { zip: ZipWriter::new(BufWriter::new(spool)), options, budget: Budget::new(limits) }
    }

    fn directory(&mut self, name: &str) -> Result<(), RunError> {
        self.budget.entry()?;
        self.zip.add_directory(name, self.options.unix_permissions(0o755)).map_err(unusable)
    }

    fn file(
        &mut self,
        name: &str,
        mode: u32,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), RunError> {
        self.budget.entry()?;
        let options = self
            .options
            .unix_permissions(mode)
            // A file may grow while we read it; then this is only about the size of the header.
            .large_file(size > u64::from(u32::MAX / 2));
        self.zip.start_file(name, options).map_err(unusable)?;
        self.budget.copy(content, &mut self.zip)
    }

    fn finish(self) -> Result<Archive, RunError> {
        let buffer = self.zip.finish().map_err(unusable)?;
        let spool = buffer.into_inner().map_err(|it| it.into_error())?;
        Ok(match spool.into_inner() {
            SpooledData::InMemory(archive) => Archive::Memory(archive.into_inner().into()),
            SpooledData::OnDisk(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Archive::File(file)
            }
        })
    }
}

/// Opens the file that a link leads to, if that is in the workspace as well.
fn open_inside(files: &Path, path: &Path) -> Result<Option<fs_err::File>, RunError> {
    let Ok(real) = path.canonicalize() else { return Ok(None) };
    let is_file = fs_err::metadata(&real)?.is_file();
    if !is_file || !real.starts_with(fs_err::canonicalize(files)?) {
        return Ok(None);
    }
    Ok(Some(fs_err::File::open(real)?))
}

/// Unpacks into `files`. An archive whose names lead elsewhere, that holds links, has a name
/// twice, meets an existing file, or unpacks to more than the limits is refused; what was
/// unpacked by then stays.
pub fn extract(
    archive: impl Read + Seek,
    files: &Path,
    limits: ArchiveLimits,
) -> Result<(), RunError> {
    let files = fs_err::canonicalize(files)?;
    let mut archive = open(archive)?;
    let mut budget = Budget::new(limits);
    for index in 0..archive.len() {
        budget.entry()?;
        let mut entry = archive.by_index(index).map_err(unusable)?;
        let name = entry.name().map_err(unusable)?.into_owned();
        let path = safe_path(&files, &name)?;
        if entry.is_symlink() {
            return Err(RunError::Archive(format!("{name:?} is a link")));
        }
        let directory = if entry.is_dir() { Some(path.as_path()) } else { path.parent() };
        let directory = directory.unwrap_or(&files);
        if directory != files {
            fs_err::create_dir_all(directory)?;
            // The names are fine, but a link that was in the workspace before could still lead out.
            if !fs_err::canonicalize(directory)?.starts_with(&files) {
                return Err(RunError::Archive(format!("{name:?} leads out of the workspace")));
            }
        }
        if entry.is_dir() {
            continue;
        }
        // Made new, the file cannot be one that was there before, nor be behind a link.
        let mut file = fs_err::File::create_new(&path)?;
        budget.copy(&mut entry, &mut file)?;
        let mode = entry.unix_mode().map_or(0o644, |mode| mode & 0o777 | 0o600);
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Unpacks into memory, and refuses what [`extract`] refuses.
pub fn unpack(archive: impl Read + Seek, limits: ArchiveLimits) -> Result<Files, RunError> {
    let mut archive = open(archive)?;
    let mut budget = Budget::new(limits);
    let mut files = Files::new();
    for index in 0..archive.len() {
        budget.entry()?;
        let mut entry = archive.by_index(index).map_err(unusable)?;
        let name = entry.name().map_err(unusable)?.into_owned();
        check_name(&name)?;
        if entry.is_symlink() {
            return Err(RunError::Archive(format!("{name:?} is a link")));
        }
        if entry.is_dir() {
            continue;
        }
        let mut content = Vec::new();
        budget.copy(&mut entry, &mut content)?;
        if files.insert(name.clone(), content.into()).is_some() {
            return Err(RunError::Archive(format!("{name:?} is there twice")));
        }
    }
    Ok(files)
}

fn safe_path(files: &Path, name: &str) -> Result<PathBuf, RunError> {
    check_name(name)?;
    Ok(files.join(name))
}

fn check_name(name: &str) -> Result<(), RunError> {
    let plain = |component| matches!(component, Component::Normal(_));
    if name.is_empty() || name.contains(['\\', '\0']) || !Path::new(name).components().all(plain) {
        return Err(RunError::Archive(format!("{name:?} is not a name inside a workspace")));
    }
    Ok(())
}

fn open<R: Read + Seek>(archive: R) -> Result<ZipArchive<BufReader<R>>, RunError> {
    ZipArchive::new(BufReader::new(archive)).map_err(unusable)
}

fn unusable(error: ZipError) -> RunError {
    match error {
        ZipError::Io(source) => damaged(source),
        error => RunError::Archive(error.to_string()),
    }
}

/// Wrong checksums and bad compressed data are errors of the archive, the rest of the machine.
fn damaged(source: io::Error) -> RunError {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            RunError::Archive(source.to_string())
        }
        _ => source.into(),
    }
}

/// What is left of the limits. Counts what really goes through, not what headers claim.
struct Budget {
    limits: ArchiveLimits,
    bytes: u64,
    entries: usize,
}

impl Budget {
    fn new(limits: ArchiveLimits) -> Self {
        Self { limits, bytes: limits.total_bytes, entries: limits.entries }
    }

    fn entry(&mut self) -> Result<(), RunError> {
        self.entries =
            self.entries.checked_sub(1).ok_or_else(|| over(self.limits.entries, "entries"))?;
        Ok(())
    }

    fn copy(&mut self, from: &mut impl Read, to: &mut impl Write) -> Result<(), RunError> {
        let copied = io::copy(&mut from.take(self.bytes.saturating_add(1)), to).map_err(damaged)?;
        self.bytes =
            self.bytes.checked_sub(copied).ok_or_else(|| over(self.limits.total_bytes, "bytes"))?;
        Ok(())
    }
}

fn over(limit: impl std::fmt::Display, unit: &str) -> RunError {
    RunError::OverLimit { stage: "archive", limit: format!("{limit} {unit}"), output: None }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Cursor, Write},
        os::unix::fs::{PermissionsExt, symlink},
    };

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    const LIMITS: ArchiveLimits = ArchiveLimits { total_bytes: 1 << 20, entries: 100 };

    fn zip_of(entries: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap()
    }

    fn content(archive: Archive) -> Vec<u8> {
        match archive {
            Archive::Memory(bytes) => bytes.to_vec(),
            Archive::File(file) => BufReader::new(file).bytes().map(Result::unwrap).collect(),
        }
    }

    #[test]
    fn a_large_archive_goes_through_a_file_that_leaves_nothing() {
        let (from, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Nothing that compression could make small: xorshift.
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(IN_MEMORY / 8 + 1000)
        .flatten()
        .collect();
        fs_err::write(from.path().join("noise"), &noise).unwrap();
        let limits = ArchiveLimits { total_bytes: 1 << 30, entries: 100 };

        let archive = write(from.path(), scratch.path(), limits).unwrap();
        assert!(matches!(archive, Archive::File(_)));
        assert_eq!(fs_err::read_dir(scratch.path()).unwrap().count(), 0);
        let to = tempfile::tempdir().unwrap();
        extract(Cursor::new(content(archive)), to.path(), limits).unwrap();
        assert_eq!(fs_err::read(to.path().join("noise")).unwrap(), noise);
    }

    #[test]
    fn a_workspace_survives_the_round_trip() {
        let from = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(from.path().join("lib/empty")).unwrap();
        fs_err::write(from.path().join("run.sh"), "echo").unwrap();
        fs_err::set_permissions(from.path().join("run.sh"), Permissions::from_mode(0o750)).unwrap();
        fs_err::write(from.path().join("lib/größe.txt"), [0xff; 5000]).unwrap();
        symlink("lib/größe.txt", from.path().join("inside")).unwrap();
        symlink("/etc/passwd", from.path().join("outside")).unwrap();
        let scratch = tempfile::tempdir().unwrap();

        let bytes = content(write(from.path(), scratch.path(), LIMITS).unwrap());
        let again = content(write(from.path(), scratch.path(), LIMITS).unwrap());
        assert_eq!(again, bytes, "equal workspaces, equal archives");

        let to = tempfile::tempdir().unwrap();
        extract(Cursor::new(bytes), to.path(), LIMITS).unwrap();
        assert_eq!(fs_err::read(to.path().join("lib/größe.txt")).unwrap(), [0xff; 5000]);
        assert_eq!(fs_err::read(to.path().join("inside")).unwrap(), [0xff; 5000]);
        assert!(!to.path().join("outside").exists());
        assert!(to.path().join("lib/empty").is_dir());
        let mode = fs_err::metadata(to.path().join("run.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
    }

    #[test]
    fn what_is_packed_in_memory_is_what_a_directory_gives() {
        let from = tempfile::tempdir().unwrap();
        let files: Files =
            [("config.yml", &b"a: 1\n"[..]), ("data.csv", b"a,b\r\n"), ("empty", b"")]
                .map(|(name, content)| (name.to_owned(), Bytes::from_static(content)))
                .into();
        for (name, content) in &files {
            fs_err::write(from.path().join(name), content).unwrap();
            let mode = Permissions::from_mode(0o644);
            fs_err::set_permissions(from.path().join(name), mode).unwrap();
        }
        let scratch = tempfile::tempdir().unwrap();
        let packed = content(pack(&files, scratch.path(), LIMITS).unwrap());
        assert_eq!(content(write(from.path(), scratch.path(), LIMITS).unwrap()), packed);
        assert_eq!(unpack(Cursor::new(packed), LIMITS).unwrap(), files);
    }

    #[test]
    fn names_that_lead_out_of_the_workspace_are_refused() {
        for name in ["../evil", "a/../../evil", "/evil", "a\\..\\evil"] {
            let outer = tempfile::tempdir().unwrap();
            let files = outer.path().join("files");
            fs_err::create_dir(&files).unwrap();
            let error = extract(zip_of(&[(name, b"x")]), &files, LIMITS).unwrap_err();
            assert!(matches!(error, RunError::Archive(_)), "{name}: {error}");
            let error = unpack(zip_of(&[(name, b"x")]), LIMITS).unwrap_err();
            assert!(matches!(error, RunError::Archive(_)), "{name}: {error}");
            assert!(!outer.path().join("evil").exists());
        }
    }

    #[test]
    fn links_do_not_lead_the_way_out() {
        let (outside, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let target = outside.path().to_str().unwrap();
        zip.add_symlink("way", target, SimpleFileOptions::default()).unwrap();
        let error = extract(zip.finish().unwrap(), files.path(), LIMITS).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");

        symlink(outside.path(), files.path().join("way")).unwrap();
        let error = extract(zip_of(&[("way/evil", b"x")]), files.path(), LIMITS).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_small_archive_that_becomes_large_is_stopped() {
        let files = tempfile::tempdir().unwrap();
        let bomb = zip_of(&[("zeros", &vec![0; 4 << 20])]);
        assert!(bomb.get_ref().len() < 64 * 1024);
        let error = extract(bomb.clone(), files.path(), LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "archive went over its limit of 1048576 bytes");
        let size = fs_err::metadata(files.path().join("zeros")).unwrap().len();
        assert!(size <= LIMITS.total_bytes + 1, "{size}");
        let error = unpack(bomb, LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "archive went over its limit of 1048576 bytes");

        let names: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let entries: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let error = extract(zip_of(&entries), files.path(), LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "archive went over its limit of 100 entries");
    }

    #[test]
    fn what_could_not_be_unpacked_is_not_packed() {
        let files = tempfile::tempdir().unwrap();
        fs_err::write(files.path().join("zeros"), vec![0; 2 << 20]).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let error = write(files.path(), scratch.path(), LIMITS).unwrap_err();
        assert!(matches!(error, RunError::OverLimit { .. }), "{error}");
    }

    #[test]
    fn damage_is_noticed() {
        let files = tempfile::tempdir().unwrap();
        let mut zip = zip_of(&[("a", &[7; 1000])]).into_inner();
        zip[40] ^= 0xff;
        for bytes in [zip, b"no archive at all".to_vec(), Vec::new()] {
            let error = unpack(Cursor::new(bytes.clone()), LIMITS).unwrap_err();
            assert!(matches!(error, RunError::Archive(_)), "{error:?}");
            let error = extract(Cursor::new(bytes), files.path(), LIMITS).unwrap_err();
            assert!(matches!(error, RunError::Archive(_)), "{error:?}");
        }
    }
}
