//! How much a script may use, and how large an archive may be.

use std::time::Duration;

/// What one script may use. `None` means as much as the server itself may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end. Afterwards the whole process group is stopped.
    pub wall_time: Option<Duration>,
    /// Processor time of all processes of the script together, in whole seconds (rounded up). The
    /// system stops a single process that uses all of it at once; what several use together is
    /// looked at several times a second, and then the whole script is stopped.
    pub cpu_time: Option<Duration>,
    /// Address space of any single process of the script. Languages that reserve much more than
    /// they use (R, Julia, anything with many threads) need generous figures here.
    pub memory_bytes: Option<u64>,
    /// Memory that all processes of the script together really use, where what they share counts
    /// once. It is looked at several times a second; a script that has more is killed.
    pub resident_bytes: Option<u64>,
    /// Size of any single file the script writes.
    pub file_bytes: Option<u64>,
    /// What everything in the workspace takes of the disk: the copy of the project, what the
    /// script writes, and its checkpoints. It is looked at about once a second; a script that has
    /// more is killed.
    pub workspace_bytes: Option<u64>,
    /// Kept of standard output and of standard error, each. The middle of longer output is dropped.
    pub output_bytes: usize,
    /// For the archive of the workspace, made and read.
    pub archive: ArchiveLimits,
}

impl Limits {
    pub(super) fn cpu_seconds(&self) -> Option<u64> {
        self.cpu_time.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Long enough for any training worth waiting for; an endless loop still ends.
            wall_time: Some(Duration::from_secs(24 * 60 * 60)),
            cpu_time: None,
            memory_bytes: None,
            resident_bytes: None,
            file_bytes: None,
            workspace_bytes: None,
            output_bytes: 1024 * 1024,
            archive: ArchiveLimits::default(),
        }
    }
}

/// What an archive may hold. The same limits hold for writing and reading, so that nothing is
/// stored that cannot be unpacked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Unpacked, all files together.
    pub total_bytes: u64,
    pub entries: usize,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self { total_bytes: 8 * 1024 * 1024 * 1024, entries: 200_000 }
    }
}
