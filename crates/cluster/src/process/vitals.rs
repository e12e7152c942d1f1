//! What a process uses, and what it may use.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::Process;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// The most that was resident since it started.
    pub peak_resident_bytes: u64,
    /// Open files, sockets included.
    pub open_files: u64,
    /// Connections, and sockets that listen.
    pub sockets: u64,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// What it uses now.
    pub(crate) fn vitals(&self) -> anyhow::Result<Vitals> {
        self.still_runs()?;
        let folder = format!("/proc/{}", self.pid);
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            number.with_context(|| format!("{folder}/status has no {name}"))
        };
        // One that is closed meanwhile can no longer be read.
        let files: Vec<PathBuf> = fs::read_dir(format!("{folder}/fd"))?
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .collect();
        let is_socket = |file: &&PathBuf| file.to_string_lossy().starts_with("socket:");
        Ok(Vitals {
            resident_bytes: number("VmRSS:")? * 1024,
            peak_resident_bytes: number("VmHWM:")? * 1024,
            open_files: files.len() as u64,
            sockets: files.iter().filter(is_socket).count() as u64,
            threads: number("Threads:")?,
        })
    }

    /// Limits its open files. The hard limit, which we share with it, stays.
    pub(crate) fn limit_open_files(&self, most: u64) -> anyhow::Result<()> {
        self.still_runs()?;
        let limit = Rlimit {
            current: Some(most),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        self.while_it_runs(|pid| prlimit(Some(pid), Resource::Nofile, limit).map(drop))
            .with_context(|| format!("could not limit the open files of {}", self.program.name))
    }
}
