//! How much a script may use, and how large an archive may be.

use std::time::Duration;

/// What one script may use. `None` means as much as the server itself may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end. Afterwards the whole process group is stopped.
    pub wall_time: Option<Duration>,
    /// Processor time of any single process of the script, in whole seconds (rounded up).
    pub cpu_time: Option<Duration>,
    /// Address space of any single process of the script. Languages that reserve much more than
    /// they use (R, Julia, anything with many threads) need generous figures here.
    pub memory_bytes: Option<u64>,
    /// Size of any single file the script writes.
    pub file_bytes: Option<u64>,
    /// Kept of standard output and of standard error, each. The middle of longer output is dropped.
    pub output_bytes: usize,
    /// For the archive of the workspace, made and read.
    pub archive: ArchiveLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Long enough for any training worth waiting for; an endless loop still ends.
            wall_time: Some(Duration::from_secs(24 * 60 * 60)),
            cpu_time: None,
            memory_bytes: None,
            file_bytes: None,
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
