//! What a process uses.

use anyhow::Context as _;
use procfs::process::{FDTarget, Process};

/// The resources that a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The maximum of resident memory since the process started, in bytes.
    pub peak_resident_bytes: u64,
    /// Open files, sockets included.
    pub open_files: u64,
    /// Connections and listening sockets.
    pub sockets: u64,
    /// Threads.
    pub threads: u64,
}

impl Vitals {
    /// Reads them from `/proc`.
    pub(super) fn of(process: &Process) -> anyhow::Result<Self> {
        let status = process.status()?;
        // A file that was closed meanwhile can no longer be read.
        let files: Vec<FDTarget> = process.fd()?.flatten().map(|file| file.target).collect();
        let sockets = files.iter().filter(|file| matches!(file, FDTarget::Socket(_)));
        Ok(Self {
            resident_bytes: status.vmrss.context("its status has no VmRSS")? * 1024,
            peak_resident_bytes: status.vmhwm.context("its status has no VmHWM")? * 1024,
            open_files: files.len() as u64,
            sockets: sockets.count() as u64,
            threads: status.threads,
        })
    }
}
