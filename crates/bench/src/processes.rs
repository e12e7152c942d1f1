//! What processes use, together with their descendants.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use procfs::process::{Stat, all_processes};

/// The resources of a process and its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far, including that of descendants that have ended.
    pub cpu: Duration,
    /// Resident memory, in bytes. Memory that processes share is counted for each of them.
    pub resident_bytes: u64,
}

/// Reads the resources of a process and its descendants.
///
/// # Errors
/// When it has ended.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let pid = i32::try_from(pid)?;
    let all = all()?;
    let root = all
        .get(&pid)
        .with_context(|| format!("process {pid} has ended"))?;
    let mut sum = own_usage(root);
    for (id, stat) in all.iter().filter(|(id, _)| **id != pid) {
        if descends(&all, *id, pid) {
            let usage = own_usage(stat);
            sum.cpu += usage.cpu;
            sum.resident_bytes += usage.resident_bytes;
        }
    }
    Ok(sum)
}

/// Whether `pid` is a descendant of the process `ancestor`.
fn descends(all: &HashMap<i32, Stat>, pid: i32, ancestor: i32) -> bool {
    let mut next = all.get(&pid).map(|process| process.ppid);
    while let Some(parent) = next.filter(|parent| *parent > 1) {
        if parent == ancestor {
            return true;
        }
        next = all.get(&parent).map(|process| process.ppid);
    }
    false
}

fn all() -> anyhow::Result<HashMap<i32, Stat>> {
    let processes = all_processes().context("could not read /proc")?;
    // A process that has ended meanwhile can no longer be read.
    let stats = processes.filter_map(|process| process.ok()?.stat().ok());
    Ok(stats.map(|stat| (stat.pid, stat)).collect())
}

fn own_usage(stat: &Stat) -> Usage {
    // Children that have ended and were waited for are in cutime and cstime.
    let ticks = stat.utime + stat.stime + (stat.cutime + stat.cstime).unsigned_abs();
    Usage {
        cpu: Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()),
        resident_bytes: stat.rss * procfs::page_size(),
    }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() -> anyhow::Result<()> {
        let line = "7 (a) b) S 3 7 7 0 -1 4 0 0 0 0 100 50 30 20 20 0 1 0 5 9000 10 18446744073709551615";
        let stat = Stat::from_read(format!("{line}{}", " 0".repeat(27)).as_bytes())?;
        let expected = Usage {
            cpu: Duration::from_millis(200 * 1000 / procfs::ticks_per_second()),
            resident_bytes: 10 * procfs::page_size(),
        };
        assert_eq!((stat.ppid, own_usage(&stat)), (3, expected));
        Ok(())
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
