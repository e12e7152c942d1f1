//! Processes of a cluster that was killed. The kernel has signalled them to end; this module waits until they have.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use procfs::process::Process;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::locked;

const END_LIMIT: Duration = Duration::from_secs(30);

/// Whether a process runs. One that has ended and was not reaped yet does not.
pub(crate) fn is_running(pid: i32) -> bool {
    u32::try_from(pid).ok().and_then(start_time).is_some()
}

/// The list of a running cluster's processes, for the case that it is killed.
#[derive(Debug)]
pub(crate) struct Leftovers {
    file: PathBuf,
    /// The lines of each part.
    lines: Mutex<BTreeMap<&'static str, String>>,
}

impl Leftovers {
    /// A list that is empty and not written yet.
    pub(crate) fn in_file(file: PathBuf) -> Self {
        Self {
            file,
            lines: Mutex::default(),
        }
    }

    /// Writes the ids and start times of a part's processes to the file, in the place of those that it had before.
    pub(crate) fn record(&self, part: &'static str, pids: &[u32]) {
        let of_part = pids
            .iter()
            .filter_map(|pid| Some(format!("{pid} {}\n", start_time(*pid)?)));
        let mut lines = locked(&self.lines);
        lines.insert(part, of_part.collect());
        // Renamed when complete: the cluster may be killed at any moment.
        let new = self.file.with_extension("new");
        let text: String = lines.values().map(String::as_str).collect();
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.file)) {
            say!(
                "the list of processes could not be written to {} ({error}): if this program is killed, end {part} by hand",
                self.file.display()
            );
        }
    }
}

/// Waits until all recorded processes have ended, and kills those that do not end in time.
///
/// # Errors
/// When a process does not end and belongs to another user.
pub(crate) fn wait_for_end(file: &Path) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(file) else {
        return Ok(());
    };
    let recorded: Vec<(u32, u64)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)))
        .collect();
    let since = Instant::now();
    loop {
        // The start time tells a process from a later one with the same id.
        let left = recorded
            .iter()
            .filter(|(pid, start)| start_time(*pid) == Some(*start));
        let left: Vec<u32> = left.map(|(pid, _)| *pid).collect();
        if left.is_empty() {
            break;
        }
        if since.elapsed() > END_LIMIT {
            for pid in left
                .iter()
                .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
            {
                match kill_process(pid, Signal::KILL) {
                    // SRCH: it has ended meanwhile.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!(
                                "process {} of a cluster that was killed does not end and could not be killed: kill it as its user",
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

/// When a process was started, in the kernel's ticks since boot. `None` if it has ended, even if its parent has not reaped it.
fn start_time(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}
