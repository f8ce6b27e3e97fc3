//! What all processes of a script use together, and what they have written: limits that the system
//! has for single processes only.
//!
//! They are looked at from time to time, so what is shorter than that is not noticed, and a limit
//! may be overstepped a little before the script is stopped. A limit that nobody set costs
//! nothing. On systems without `/proc` there is nothing to be seen of processes.

use std::{
    collections::BTreeMap,
    future::pending,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tokio::time::sleep;
use walkdir::WalkDir;

use super::{Limits, blocking, procfs::is_marked};

/// How often processes are looked at.
const PROCESSES: Duration = Duration::from_millis(250);

/// How often files are looked at. More rarely when there are many, so that looking takes at most
/// a twentieth of the time.
const FILES: Duration = Duration::from_secs(1);

/// A second of processor time, as `/proc` counts it on every architecture that we know.
const TICKS: u64 = 100;

/// A limit that a script went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overstepped {
    Processor { seconds: u64 },
    Memory { bytes: u64 },
    Workspace { bytes: u64 },
}

impl std::fmt::Display for Overstepped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Overstepped::Processor { seconds } => write!(f, "{seconds} seconds of processor time"),
            Overstepped::Memory { bytes } => write!(f, "{bytes} bytes of memory"),
            Overstepped::Workspace { bytes } => write!(f, "{bytes} bytes of files"),
        }
    }
}

/// Ends when the process group of a workspace goes over one of its limits.
pub async fn overstepped(group: Pid, workspace: &Path, limits: &Limits) -> Overstepped {
    tokio::select! {
        it = by_processes(group, workspace.to_owned(), limits) => it,
        it = by_files(workspace.to_owned(), limits) => it,
    }
}

async fn by_processes(group: Pid, workspace: PathBuf, limits: &Limits) -> Overstepped {
    let seconds = limits.cpu_seconds();
    let memory = limits.resident_bytes;
    if seconds.is_none() && memory.is_none() {
        return pending().await;
    }
    let mut times = Times::default();
    loop {
        sleep(PROCESSES).await;
        let workspace = workspace.clone();
        let look = blocking(move || {
            let processes = processes(group, &workspace);
            times.add(&processes);
            let memory = memory.filter(|bytes| uses_more(&processes, *bytes));
            Ok((times, memory))
        });
        let Ok((now, memory)) = look.await else { return pending().await };
        times = now;
        if let Some(seconds) = seconds.filter(|it| times.seconds() >= *it) {
            return Overstepped::Processor { seconds };
        }
        if let Some(bytes) = memory {
            return Overstepped::Memory { bytes };
        }
    }
}

/// Looks at the files once, as they are when the script has ended.
pub async fn left_too_much(workspace: &Path, limits: &Limits) -> Option<Overstepped> {
    let (bytes, workspace) = (limits.workspace_bytes?, workspace.to_owned());
    let size = blocking(move || Ok(size(&workspace, bytes))).await;
    size.is_ok_and(|size| size > bytes).then_some(Overstepped::Workspace { bytes })
}

async fn by_files(workspace: PathBuf, limits: &Limits) -> Overstepped {
    let Some(bytes) = limits.workspace_bytes else { return pending().await };
    let mut pause = FILES;
    loop {
        sleep(pause).await;
        let workspace = workspace.clone();
        let look = blocking(move || {
            let start = Instant::now();
            Ok((size(&workspace, bytes), start.elapsed()))
        });
        let Ok((size, took)) = look.await else { return pending().await };
        if size > bytes {
            return Overstepped::Workspace { bytes };
        }
        pause = FILES.max(took * 20);
    }
}

/// A living process of a script.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// In ticks since the start of the machine: with the id, what no other process has.
    started: u64,
    /// Its processor time in ticks.
    own: u64,
    /// That of its children that ended and that it waited for, and of theirs.
    children: u64,
}

impl Process {
    /// Reads `/proc/PID/stat`, and says which process group that is of.
    fn read(stat: &str) -> Option<(Self, i32)> {
        let (pid, _) = stat.split_once(' ')?;
        // The name of the program stands in parentheses and may itself hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let (own, children) = (number(11)? + number(12)?, number(13)? + number(14)?);
        let process = Self { pid: pid.parse().ok()?, started: number(19)?, own, children };
        Some((process, fields.get(2)?.parse().ok()?))
    }

    /// A figure of one of its files in `/proc`, which gives it in kB.
    fn bytes(&self, file: &str, field: &str) -> Option<u64> {
        let text = fs_err::read_to_string(format!("/proc/{}/{file}", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }
}

/// Those of the group, and those that left it.
fn processes(group: Pid, workspace: &Path) -> Vec<Process> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (process, of) = Process::read(&stat)?;
        (of == group.as_raw_pid() || is_marked(pid, workspace)).then_some(process)
    })
    .collect()
}

/// Whether processes use more memory than that. What they share counts once, which takes longer
/// to find out, so it is only looked at when it matters.
fn uses_more(processes: &[Process], bytes: u64) -> bool {
    let resident = |it: &Process| it.bytes("status", "VmRSS:").unwrap_or_default();
    let fair_part = |it: &Process| it.bytes("smaps_rollup", "Pss:").unwrap_or_else(|| resident(it));
    processes.iter().map(resident).sum::<u64>() > bytes
        && processes.iter().map(fair_part).sum::<u64>() > bytes
}

/// Adds up the processor time of processes that come and go, in two ways, since each misses
/// something: processes that nobody saw are only in the time of who waited for them, and those that
/// nobody waited for are only known while they run.
#[derive(Clone, Debug, Default)]
struct Times {
    /// The most that the living had at one time, with their children.
    waited_for: u64,
    /// The own time of the living, each by its id and start.
    seen: BTreeMap<(i32, u64), u64>,
    /// And of those that were seen before.
    gone: u64,
}

impl Times {
    fn add(&mut self, processes: &[Process]) {
        let with_children = processes.iter().map(|it| it.own + it.children).sum();
        self.waited_for = self.waited_for.max(with_children);
        let seen = processes.iter().map(|it| ((it.pid, it.started), it.own)).collect();
        let before = std::mem::replace(&mut self.seen, seen);
        self.gone += before
            .iter()
            .filter(|(id, _)| !self.seen.contains_key(id))
            .map(|(_, own)| own)
            .sum::<u64>();
    }

    fn seconds(&self) -> u64 {
        let seen = self.gone + self.seen.values().sum::<u64>();
        self.waited_for.max(seen) / TICKS
    }
}

/// What all files take of the disk together; not counted further than that it is more than `most`.
fn size(directory: &Path, most: u64) -> u64 {
    let mut size = 0;
    for entry in WalkDir::new(directory).into_iter().flatten() {
        // What goes away meanwhile takes nothing. A block of this figure has 512 bytes everywhere,
        // and a file of several names is found that often.
        size += entry.metadata().map_or(0, |it| match it.is_file() {
            true => it.blocks() * 512 / it.nlink().max(1),
            false => it.blocks() * 512,
        });
        if size > most {
            break;
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, own: u64, children: u64) -> Process {
        Process { pid, started: 1, own, children }
    }

    #[test]
    fn a_line_of_a_process_is_read_whatever_its_name_is() {
        let fields = "S 1 7 7 0 -1 4194304 98 0 0 0 10 20 300 400 20 0 1 0 103144 3133440 410";
        let (read, group) = Process::read(&format!("9 (sh) 1 (x)) {fields}")).unwrap();
        assert_eq!((read, group), (Process { started: 103_144, ..process(9, 30, 700) }, 7));
        assert_eq!(Process::read("9 (sh) S 1 7"), None);
    }

    #[test]
    fn processor_time_is_not_lost_when_a_process_ends() {
        let mut times = Times::default();
        times.add(&[process(1, 10, 0), process(2, 500, 0)]);
        // Nobody waited for it.
        times.add(&[process(1, 10, 0), process(3, 500, 0)]);
        assert_eq!(times.seconds(), 10);
        // These were too short to be seen.
        times.add(&[process(1, 10, 2990)]);
        assert_eq!(times.seconds(), 30);
    }

    #[test]
    fn a_sparse_file_takes_what_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(directory.path().join("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(size(directory.path(), u64::MAX) < 1 << 20);
        fs_err::write(directory.path().join("dense"), vec![1; 1 << 20]).unwrap();
        assert!(size(directory.path(), u64::MAX) >= 1 << 20);
    }
}
