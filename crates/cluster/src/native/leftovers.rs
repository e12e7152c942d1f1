//! Servers of a cluster that was killed: the kernel has told them to end, and this waits until they have.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a process runs: one that has ended and waits for its parent does not.
pub(crate) fn runs(pid: i32) -> bool {
    u32::try_from(pid).ok().and_then(started).is_some()
}

/// Writes down which processes a cluster has started.
pub(crate) fn record(file: &Path, pids: &[u32]) -> anyhow::Result<()> {
    let lines = pids
        .iter()
        .filter_map(|pid| Some(format!("{pid} {}\n", started(*pid)?)));
    Ok(fs::write(file, lines.collect::<String>())?)
}

/// Waits until none of the processes written down is left; kills those that do not end.
///
/// # Errors
/// When one does not end and is another user's.
pub(crate) fn wait_for_end(file: &Path) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(file) else {
        return Ok(());
    };
    let written: Vec<(u32, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(pid, start)| Some((pid.parse().ok()?, start)))
        .collect();
    let since = Instant::now();
    loop {
        // The start time tells a process from a stranger that got the same id later.
        let left = written
            .iter()
            .filter(|(pid, start)| started(*pid).is_some_and(|now| now == *start));
        let left: Vec<u32> = left.map(|(pid, _)| *pid).collect();
        if left.is_empty() {
            break;
        }
        if since.elapsed() > PATIENCE {
            for pid in left
                .iter()
                .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
            {
                match kill_process(pid, Signal::KILL) {
                    // It has ended just now.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!(
                                "process {} of a cluster that was killed does not end, and could not be killed: do it as its user",
                                pid.as_raw_nonzero()
                            )
                        });
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::remove_file(file);
    Ok(())
}

/// When a process was started, in the kernel's ticks since boot; nothing for one that has ended.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        None
    } else {
        fields.nth(18).map(str::to_owned)
    }
}
