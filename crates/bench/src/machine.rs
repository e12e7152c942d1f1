//! Where the figures were measured.

use std::fs;

use cluster::postgres_binaries;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command;

/// The machine, and what ran on it. What could not be told is empty.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that may be used.
    pub cores: usize,
    /// Of memory.
    pub memory_mb: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Of the folder that the servers have their data in.
    pub file_system: String,
    /// Version of PostgreSQL.
    pub postgresql: String,
    /// Version of RabbitMQ.
    pub rabbitmq: String,
    /// Version of the compiler.
    pub rustc: String,
    /// The commit that is checked out, with `-dirty` where files differ.
    pub commit: String,
    /// When.
    pub date: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub async fn this() -> Self {
        let postgres = postgres_binaries().map(|folder| folder.join("postgres").display().to_string());
        let postgres = line(&postgres.unwrap_or_default(), &["--version"]).await;
        let folder = std::env::temp_dir().display().to_string();
        let memory_kb = value("/proc/meminfo", "MemTotal:");
        let memory_kb = memory_kb
            .split_whitespace()
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        let now = OffsetDateTime::now_utc().truncate_to_second();
        Self {
            cpu: value("/proc/cpuinfo", "model name")
                .trim_start_matches([':', ' ', '\t'])
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory_kb.unwrap_or_default() / 1024,
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

    /// In a sentence.
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
             The load is made on the same machine."
        )
    }
}

/// The first line that a program prints.
async fn line(program: &str, arguments: &[&str]) -> String {
    let output = command::output(program, arguments, &[]).await.unwrap_or_default();
    output.lines().next().unwrap_or_default().trim().to_owned()
}

/// What follows a name at the beginning of a line.
fn value(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_default().trim().to_owned()
}
