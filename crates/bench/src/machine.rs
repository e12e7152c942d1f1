//! The machine on which the figures were measured.

use std::fs;

use cluster::postgres_binaries;
use procfs::{CpuInfo, Current as _, Meminfo};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command;

/// The machine, and the software on it. What could not be found out is empty.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Number of usable processors.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mb: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// File system of the folder with the data of the servers.
    pub file_system: String,
    /// Version of PostgreSQL.
    pub postgresql: String,
    /// Version of RabbitMQ.
    pub rabbitmq: String,
    /// Version of the compiler.
    pub rustc: String,
    /// The commit that is checked out, with `-dirty` where files differ.
    pub commit: String,
    /// Time of the measurement, RFC 3339.
    pub date: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub async fn this() -> Self {
        let postgres = postgres_binaries().map(|folder| folder.join("postgres").display().to_string());
        let postgres = line(&postgres.unwrap_or_default(), &["--version"]).await;
        let folder = std::env::temp_dir().display().to_string();
        let memory = Meminfo::current().map(|memory| memory.mem_total);
        let cpus = CpuInfo::current().ok();
        let now = OffsetDateTime::now_utc().truncate_to_second();
        Self {
            cpu: cpus
                .and_then(|cpus| cpus.model_name(0).map(str::to_owned))
                .unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory.unwrap_or_default() / 1024 / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system: line("stat", &["--file-system", "--format=%T", &folder]).await,
            postgresql: postgres.replace("postgres (PostgreSQL) ", ""),
            rabbitmq: line(
                "dpkg-query",
                &["--show", "--showformat=${Version}", "rabbitmq-server"],
            )
            .await,
            rustc: line("rustc", &["--version"]).await,
            commit: line("git", &["describe", "--always", "--dirty", "--abbrev=10"]).await,
            date: now.format(&Rfc3339).unwrap_or_default(),
        }
    }

    /// All of it, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self {
            cpu,
            cores,
            memory_mb,
            kernel,
            file_system,
            postgresql,
            rabbitmq,
            rustc,
            commit,
            date,
        } = self;
        format!(
            "{cores} cores ({cpu}), {memory_mb} MB, Linux {kernel}, data on {file_system}, PostgreSQL {postgresql}, RabbitMQ {rabbitmq}, {rustc}; commit {commit}, {date}. \
             The load generator runs on the same machine."
        )
    }
}

/// The first line that a program prints.
async fn line(program: &str, arguments: &[&str]) -> String {
    let output = command::output(program, arguments, &[]).await.unwrap_or_default();
    output.lines().next().unwrap_or_default().trim().to_owned()
}
