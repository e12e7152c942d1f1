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
    usage_among(&all()?, i32::try_from(pid)?)
}

fn usage_among(all: &HashMap<i32, Stat>, pid: i32) -> anyhow::Result<Usage> {
    let root = all
        .get(&pid)
        .with_context(|| format!("process {pid} has ended"))?;
    let mut sum = own_usage(root);
    for (id, stat) in all.iter().filter(|(id, _)| **id != pid) {
        if descends(all, *id, pid) {
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

    /// A process that has used 1 s of CPU time and holds as many pages as its id.
    fn process(pid: i32, parent: i32, name: &str) -> anyhow::Result<(i32, Stat)> {
        let ticks = procfs::ticks_per_second();
        let line =
            format!("{pid} ({name}) S {parent} 7 7 0 -1 4 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5 9000 {pid}");
        let stat = Stat::from_read(format!("{line} 18446744073709551615{}", " 0".repeat(27)).as_bytes())?;
        Ok((pid, stat))
    }

    #[test]
    fn a_process_is_read_whatever_its_name() -> anyhow::Result<()> {
        let (_, stat) = process(7, 3, "a) b")?;
        let expected = Usage {
            cpu: Duration::from_secs(1),
            resident_bytes: 7 * procfs::page_size(),
        };
        assert_eq!((stat.ppid, own_usage(&stat)), (3, expected));
        Ok(())
    }

    #[test]
    fn what_a_process_started_is_counted_with_it() -> anyhow::Result<()> {
        let all = [(10, 1), (20, 10), (30, 20), (40, 1)].map(|(pid, parent)| process(pid, parent, "a"));
        let all: HashMap<_, _> = all.into_iter().collect::<anyhow::Result<_>>()?;
        let expected = Usage {
            cpu: Duration::from_secs(3),
            resident_bytes: (10 + 20 + 30) * procfs::page_size(),
        };
        assert_eq!(usage_among(&all, 10)?, expected);
        assert!(usage_among(&all, 50).is_err());
        Ok(())
    }

    #[test]
    fn this_process_is_among_all() -> anyhow::Result<()> {
        assert!(usage(std::process::id())?.resident_bytes > 0);
        Ok(())
    }
}
