//! Load by `wrk`, the generator of the package of that name.

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

/// What is asked for, again and again.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// New orders of 0.01 USD, so small that no run fills the book.
    NewOrders,
    /// Orders that were placed before: see [`repeated_key`].
    Repeats {
        /// Which orders.
        run: u32,
        /// How many of them.
        keys: u32,
    },
    /// The URL as it is.
    Get,
}

/// The key of an order that is to be repeated, of those with numbers below `keys`.
#[must_use]
pub fn repeated_key(run: u32, number: u32) -> String {
    format!("{run:08x}-0000-4000-8000-{number:012x}")
}

/// How much is asked for, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// What.
    pub ask: Ask,
    /// Connections, each with one request under way.
    pub connections: u32,
    /// How long.
    pub duration: Duration,
    /// Requests a second; `None` is as many as come back.
    pub rate: Option<u32>,
}

impl Load {
    /// As many requests as come back.
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

/// What came of it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Outcome {
    /// Answers.
    pub requests: u64,
    bytes: u64,
    duration_us: u64,
    /// Latency in µs that half of the requests kept. Of several generators, as of the slowest; so are the others.
    pub p50_us: f64,
    /// That 99 % kept.
    pub p99_us: f64,
    /// That 99.9 % kept.
    pub p999_us: f64,
    /// What failed.
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
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.connect + self.read + self.write + self.timeout + self.status
    }
}

impl Outcome {
    /// Answers a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        figure(self.requests) / (figure(self.duration_us) / 1e6)
    }

    /// Answers that are no refusals.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.requests - self.errors.status
    }

    /// Size of an answer with its headers.
    #[must_use]
    pub fn bytes_each(&self) -> f64 {
        figure(self.bytes) / figure(self.requests)
    }

    /// Adds what came of another generator at the same time.
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

/// Puts load on URLs at once, each with its share of the connections and the rate.
///
/// # Errors
/// When `wrk` is missing or fails. A request that fails is in the outcome.
pub async fn run(folder: &Path, urls: &[String], load: Load) -> anyhow::Result<Outcome> {
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
    // In all a second thread pays only where one alone would be busy.
    let threads = if load.connections < 16 || shares > 1 { 1 } else { 2 };
    let runs = urls.iter().map(|url| run_one(&script, url, share, threads));
    let mut all = Outcome::default();
    for outcome in try_join_all(runs).await? {
        all.add(&outcome);
    }
    Ok(all)
}

async fn run_one(script: &Path, url: &str, load: Load, threads: u32) -> anyhow::Result<Outcome> {
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
    match load.ask {
        Ask::NewOrders => {
            // 16 bits, beside the random ones of the script: generators at once do not make the same keys.
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
