//! Telling processes apart after the fact, by what `/proc` says about them. On systems without
//! `/proc` nothing is ever found, so nothing is ever killed.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

/// Set for every script to the directory of its workspace, and inherited by what it starts.
pub const WORKSPACE_VARIABLE: &str = "MODELYARD_WORKSPACE";

/// A process as it was when its script began. A process id alone is not enough: the system gives
/// it to someone else later. Together with boot and start time it stays unique.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    boot: String,
    pid: i32,
    /// In clock ticks since the boot.
    started: u64,
}

impl Identity {
    /// Reads a record of the form `BOOT-ID LINE`, where the line is that of `/proc/PID/stat`.
    pub fn parse(record: &str) -> Option<Self> {
        let (boot, stat) = record.trim().split_once(' ')?;
        let (pid, _) = stat.split_once(' ')?;
        // The name of the program stands in parentheses and may itself hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        Some(Self {
            boot: boot.to_owned(),
            pid: pid.parse().ok()?,
            started: fields.split_whitespace().nth(19)?.parse().ok()?,
        })
    }

    fn current(pid: i32) -> Option<Self> {
        let boot = boot_id()?;
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&format!("{boot} {stat}"))
    }

    /// Kills the process group this process leads, if it is still the same process.
    pub fn kill_group(&self) -> bool {
        let same = Self::current(self.pid).is_some_and(|current| current == *self);
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| same) else { return false };
        kill_process_group(pid, Signal::KILL).is_ok()
    }
}

/// What is another after each start of the machine.
pub fn boot_id() -> Option<String> {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// Whether anyone in the process group still does something. The dead stay in their group until
/// their parent takes note, which in a container can be never.
pub fn group_is_running(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = fs_err::read_dir("/proc") else { return true };
    processes.flatten().any(|entry| {
        let stat = fs_err::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let state = fields.next();
        let in_group = fields.nth(1).is_some_and(|id| id.parse() == Ok(group.as_raw_pid()));
        in_group && !matches!(state, Some("Z" | "X"))
    })
}

/// Kills every process that was started from this workspace, also one that left its process group,
/// and says how many there were.
pub fn kill_marked(workspace: &Path) -> usize {
    let mark = mark(workspace);
    let mut killed: Vec<Pid> = Vec::new();
    // One that forks while we look can have a child we did not see, so look until there is no new
    // one. Those already killed may take a moment to go, and one that forks for ever is not ours
    // to win against.
    for _ in 0..20 {
        let mut found = marked(&mark);
        found.retain(|pid| !killed.contains(pid));
        if found.is_empty() {
            break;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
            killed.push(pid);
        }
    }
    killed.len()
}

/// What the environment of every process of a workspace has.
fn mark(workspace: &Path) -> Vec<u8> {
    [WORKSPACE_VARIABLE.as_bytes(), b"=", workspace.as_os_str().as_encoded_bytes()].concat()
}

/// Whether a process was started from this workspace.
pub fn is_marked(pid: i32, workspace: &Path) -> bool {
    has_mark(pid, &mark(workspace))
}

fn has_mark(pid: i32, mark: &[u8]) -> bool {
    // Processes of others cannot be read, and are not ours. A dead one has no environment.
    fs_err::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

fn marked(mark: &[u8]) -> Vec<Pid> {
    let Ok(processes) = fs_err::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id().cast_signed();
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| has_mark(*pid, mark))
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn the_name_of_a_program_does_not_confuse_the_record() {
        let fields = "S 1 7 7 0 -1 4194304 98 0 0 0 0 0 0 0 20 0 1 0 103144 3133440 410";
        let record = format!("29a679c0 7 (sh) 1 (x)) {fields}\n");
        let identity = Identity::parse(&record).unwrap();
        assert_eq!(identity, Identity { boot: "29a679c0".to_owned(), pid: 7, started: 103_144 });
    }

    #[test]
    fn half_a_record_is_no_record() {
        for record in ["", "29a679c0", "29a679c0 7", "29a679c0 7 (sh) S 1 7"] {
            assert_eq!(Identity::parse(record), None, "{record}");
        }
    }
}
