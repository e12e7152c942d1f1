//! What processes use, with all that they started.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// What a process and its descendants use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor so far, also of descendants that have ended.
    pub cpu: Duration,
    /// Memory that is resident. What they share is counted for each.
    pub resident_bytes: u64,
}

/// What the process and its descendants use.
///
/// # Errors
/// When it has ended.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let all = all()?;
    let root = all
        .get(&pid)
        .with_context(|| format!("process {pid} has ended"))?;
    let mut sum = root.usage;
    for (id, process) in all.iter().filter(|(id, _)| **id != pid) {
        if descends(&all, *id, pid) {
            sum.cpu += process.usage.cpu;
            sum.resident_bytes += process.usage.resident_bytes;
        }
    }
    Ok(sum)
}

#[derive(Debug)]
struct Process {
    parent: u32,
    usage: Usage,
}

fn descends(all: &HashMap<u32, Process>, pid: u32, from: u32) -> bool {
    let mut next = all.get(&pid).map(|process| process.parent);
    while let Some(parent) = next.filter(|parent| *parent > 1) {
        if parent == from {
            return true;
        }
        next = all.get(&parent).map(|process| process.parent);
    }
    false
}

fn all() -> anyhow::Result<HashMap<u32, Process>> {
    let entries = fs::read_dir("/proc").context("could not read /proc")?;
    // One that ends meanwhile can no longer be read.
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, process(&stat)?))
    };
    Ok(entries.filter_map(read).collect())
}

/// Reads a line of `/proc/PID/stat`: proc(5).
fn process(stat: &str) -> Option<Process> {
    // The name is in parentheses and may hold anything. After it come the third field and those that follow.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    // utime, stime, and those of children that have ended and were waited for.
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let page_size = u64::try_from(rustix::param::page_size()).ok()?;
    Some(Process {
        parent: u32::try_from(field(4)?).ok()?,
        usage: Usage {
            cpu: Duration::from_millis(ticks * 1000 / ticks_per_second),
            resident_bytes: field(24)? * page_size,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4 0 0 0 0 100 50 30 20 20 0 1 0 5 9000 10 18446744073709551615";
        let process = process(stat);
        assert_eq!(process.as_ref().map(|process| process.parent), Some(3));
        let page_size = u64::try_from(rustix::param::page_size()).unwrap_or_default();
        assert!(
            process.is_some_and(|process| process.usage.resident_bytes == 10 * page_size
                && process.usage.cpu
                    == Duration::from_millis(200 * 1000 / rustix::param::clock_ticks_per_second()))
        );
    }

    #[test]
    fn what_a_process_started_is_counted_with_it() -> anyhow::Result<()> {
        let before = usage(std::process::id())?;
        let mut child = std::process::Command::new("sleep").arg("10").spawn()?;
        let with_child = usage(std::process::id());
        child.kill()?;
        child.wait()?;
        assert!(with_child?.resident_bytes > before.resident_bytes);
        Ok(())
    }
}
