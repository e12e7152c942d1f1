//! Load from the generator `wrk`, of the Debian package with that name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;

use crate::command;
use crate::figures::figure;

const SCRIPT: &str = include_str!("wrk/load.lua");

/// An answer that takes longer is counted as an error.
const TIMEOUT: &str = "15s";

/// The requests of a load.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// New orders of 0.01 USD, so small that no run reaches the cap.
    NewOrders,
    /// Repeats of orders that were placed before: see [`repeated_key`].
    Repeats {
        /// Identifies the orders.
        run: u32,
        /// The number of orders.
        keys: u32,
    },
    /// GET of the URL.
    Get,
}

/// The key of the repeated order with this number, which is below `keys`.
#[must_use]
pub fn repeated_key(run: u32, number: u32) -> String {
    format!("{run:08x}-0000-4000-8000-{number:012x}")
}

/// How much load, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The requests.
    pub ask: Ask,
    /// Connections, each with one request in flight.
    pub connections: u32,
    /// The duration.
    pub duration: Duration,
    /// Requests per second. `None` means as many as possible.
    pub rate: Option<u32>,
}

impl Load {
    /// As many requests as possible.
    #[must_use]
    pub fn unpaced(ask: Ask, connections: u32, duration: Duration) -> Self {
        Self {
            ask,
            connections,
            duration,
            rate: None,
        }
    }
}

/// The results of a load.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Outcome {
    /// Number of answers.
    pub requests: u64,
    bytes: u64,
    duration_us: u64,
    /// Median latency in µs. With several generators: that of the slowest, as for the other percentiles.
    pub p50_us: f64,
    /// 99th percentile of the latency in µs.
    pub p99_us: f64,
    /// 99.9th percentile of the latency in µs.
    pub p999_us: f64,
    /// Failed requests.
    pub errors: Errors,
}

/// Requests that failed, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Errors {
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
    status: u64,
}

impl Errors {
    /// The sum of all kinds.
    #[must_use]
    pub fn total(self) -> u64 {
        self.connect + self.read + self.write + self.timeout + self.status
    }
}

impl Outcome {
    /// Answers per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        figure(self.requests) / (figure(self.duration_us) / 1e6)
    }

    /// Successful answers.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.requests - self.errors.status
    }

    /// Mean size of an answer including its headers, in bytes.
    #[must_use]
    pub fn bytes_each(&self) -> f64 {
        figure(self.bytes) / figure(self.requests)
    }

    /// Adds the results of another generator that ran at the same time.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.duration_us = self.duration_us.max(other.duration_us);
        self.p50_us = self.p50_us.max(other.p50_us);
        self.p99_us = self.p99_us.max(other.p99_us);
        self.p999_us = self.p999_us.max(other.p999_us);
        self.errors.connect += other.errors.connect;
        self.errors.read += other.errors.read;
        self.errors.write += other.errors.write;
        self.errors.timeout += other.errors.timeout;
        self.errors.status += other.errors.status;
    }
}

/// Puts load on several URLs at once, each with an equal share of the connections and the rate. With a token, each request has it.
///
/// # Errors
/// When `wrk` is missing or fails. A request that fails is in the outcome.
pub async fn run(folder: &Path, urls: &[String], load: Load, token: Option<&str>) -> anyhow::Result<Outcome> {
    let script = folder.join("load.lua");
    std::fs::write(&script, SCRIPT).context("could not write the script of wrk")?;
    let shares = u32::try_from(urls.len())?;
    ensure!(
        shares > 0 && load.connections >= shares,
        "fewer connections than URLs"
    );
    let share = Load {
        connections: load.connections / shares,
        rate: load.rate.map(|rate| rate / shares),
        ..load
    };
    // A second thread is worth it only with many connections.
    let threads = if load.connections < 16 || shares > 1 { 1 } else { 2 };
    let runs = urls
        .iter()
        .map(|url| run_one(&script, url, share, threads, token));
    let mut all = Outcome::default();
    for outcome in try_join_all(runs).await? {
        all.add(&outcome);
    }
    Ok(all)
}

async fn run_one(
    script: &Path,
    url: &str,
    load: Load,
    threads: u32,
    token: Option<&str>,
) -> anyhow::Result<Outcome> {
    let pause_ms = load
        .rate
        .map_or(0.0, |rate| f64::from(threads) * 1000.0 / f64::from(rate));
    let mut arguments = vec![
        format!("-t{threads}"),
        format!("-c{}", load.connections),
        format!("-d{}s", load.duration.as_secs().max(1)),
        "--timeout".to_owned(),
        TIMEOUT.to_owned(),
        "-s".to_owned(),
        script.display().to_string(),
        url.to_owned(),
        "--".to_owned(),
        pause_ms.to_string(),
    ];
    if let Some(token) = token {
        let header = format!("Authorization: Bearer {token}");
        arguments.splice(0..0, ["-H".to_owned(), header]);
    }
    match load.ask {
        Ask::NewOrders => {
            // 16 random bits besides those of the script, so that two generators do not make the same keys.
            let (run, ..) = uuid::Uuid::new_v4().as_fields();
            arguments.extend(["orders".to_owned(), format!("{:x}", run >> 16)]);
        }
        Ask::Repeats { run, keys } => {
            arguments.extend(["repeats".to_owned(), format!("{run:x}"), keys.to_string()]);
        }
        Ask::Get => arguments.push("get".to_owned()),
    }
    let output = command::output("wrk", &arguments, &[]).await?;
    let summary = output.lines().rev().find(|line| line.starts_with('{'));
    let summary = summary.with_context(|| format!("wrk printed no summary:\n{output}"))?;
    serde_json::from_str(summary).with_context(|| format!("wrk printed {summary}"))
}
