//! What Linux knows of a process and its children, from `/proc`.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context, Result};

/// `/proc` counts CPU time in hundredths of a second, whatever the kernel's own clock.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process, its descendants, and the children it has waited for.
pub fn cpu_time(root: u32) -> Duration {
    let processes = processes();
    let tree = tree(root, &processes);
    let own: u64 = tree.iter().map(|id| processes[id].own_ticks).sum();
    let reaped: u64 = tree.iter().map(|id| processes[id].reaped_ticks).sum();
    time(own + reaped)
}

/// Memory of a process and its descendants that is in RAM now.
pub fn resident_bytes(root: u32) -> u64 {
    let resident = |id: &u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    tree(root, &processes()).iter().filter_map(resident).sum::<u64>() * 1024
}

/// CPU time that the whole machine has spent on anything.
pub fn machine_cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut fields = stat.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
    // user, nice, system; then idle and waiting for disks, which are not work; then interrupts.
    let busy: u64 = fields.by_ref().take(3).sum();
    time(busy + fields.skip(2).take(3).sum::<u64>())
}

/// The machine in one line: cores, processor, memory, kernel.
pub fn machine() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let (processors, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let names: Vec<&str> = processors
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| Some(line.split_once(':')?.1.trim()))
        .collect();
    let kibibytes = memory.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok());
    let cores = std::thread::available_parallelism()?;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{cores} cores ({}), {} GiB, Linux {}",
        names.first().unwrap_or(&"unknown"),
        kibibytes.unwrap_or_default() / (1024 * 1024),
        kernel.trim()
    ))
}

struct Process {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
}

fn time(ticks: u64) -> Duration {
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((id, parse(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// One line of `/proc/PID/stat`. The name in parentheses may hold anything, so count from its end.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: ticks(11)? + ticks(12)?,
        reaped_ticks: ticks(13)? + ticks(14)?,
    })
}

fn tree(root: u32, processes: &HashMap<u32, Process>) -> Vec<u32> {
    let mut tree: Vec<u32> = processes.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(processes.iter().filter(|(_, it)| it.parent == parent).map(|(id, _)| *id));
        next += 1;
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_has_spaces_and_parentheses_is_read() {
        let process =
            parse("42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 11 22 33 44 20 0 1").unwrap();
        assert_eq!((process.parent, process.own_ticks, process.reaped_ticks), (7, 33, 77));
    }

    #[test]
    fn a_tree_holds_the_grandchildren_and_no_strangers() {
        let process = |parent| Process { parent, own_ticks: 0, reaped_ticks: 0 };
        let processes =
            HashMap::from([(1, process(0)), (2, process(1)), (3, process(2)), (4, process(0))]);
        assert_eq!(tree(1, &processes), [1, 2, 3]);
    }
}
