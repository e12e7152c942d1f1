//! The same work on the bare server: PostgreSQL's `pgbench` with the statements of the services, prepared and planned like theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cluster::{DatabaseAddress, postgres_binaries};
use common::database::SESSION_SETTINGS;
use create_buy_order::db::LOOK_UP;
use fetch_buy_orders::db::PAGES;

use crate::command;
use crate::figures::percentile;

/// How much work is done.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// As much as possible in this time.
    For(Duration),
    /// This many transactions in total, and at least one per client.
    Transactions(u32),
}

/// Clients that connect per second, conservatively. The run time of `pgbench` includes connecting, although its results do not. The second
/// number is for a machine so busy that no transaction was made with the first.
const CONNECTED_PER_SECOND: [u64; 2] = [64, 8];

/// A random key, as clients make them.
const NEW_KEY: &str =
    "(lpad(to_hex(:key_front::bigint), 16, '0') || lpad(to_hex(:key_back::bigint), 16, '0'))::uuid";
/// A key as [`crate::wrk::repeated_key`] makes it.
const REPEATED_KEY: &str =
    "(:run::text || '-0000-4000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid";

const NOTHING_DONE: &str = "number of transactions actually processed: 0\n";

/// The work of one transaction.
#[derive(Debug, Clone)]
pub enum Work {
    /// Writes an order with `accept_orders`.
    OneOrder,
    /// Writes many orders with one call and one commit.
    Batch {
        /// The number of orders.
        orders: u32,
    },
    /// Looks up one of these orders by its key: see [`crate::wrk::repeated_key`].
    LookUp {
        /// Identifies the orders.
        run: u32,
        /// The number of orders.
        keys: u32,
    },
    /// Reads the newest page.
    Page {
        /// The number of rows.
        page_size: u32,
    },
}

impl Work {
    fn script(&self) -> String {
        match self {
            Self::OneOrder => include_str!("pgbench/one_order.sql").replace("{key}", NEW_KEY),
            Self::Batch { orders } => include_str!("pgbench/batch.sql")
                .replace("{random_uuids}", &random_uuids(*orders))
                .replace("{orders}", &orders.to_string()),
            Self::LookUp { .. } => format!("\\set number random(0, :keys - 1)\n{};", look_up(REPEATED_KEY)),
            Self::Page { page_size } => {
                let newest = PAGES.replace("$1", "ARRAY[1]").replace("$2", "ARRAY[NULL]");
                newest.replace("$3", &format!("ARRAY[{page_size}]")) + ";"
            }
        }
    }

    /// The fraction of the transactions whose latency is logged. Below 1 for transactions so fast that logging would slow them down.
    fn sampled(&self) -> f64 {
        match self {
            Self::OneOrder | Self::Batch { .. } => 1.0,
            Self::LookUp { .. } | Self::Page { .. } => 0.2,
        }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::OneOrder | Self::Batch { .. } | Self::Page { .. } => Vec::new(),
            Self::LookUp { run, keys } => vec![("run", format!("{run:08x}")), ("keys", keys.to_string())],
        }
    }
}

/// The look-up of one order by its key, in SQL.
fn look_up(key: &str) -> String {
    LOOK_UP
        .replace("$1", "ARRAY[1]")
        .replace("$2", "ARRAY['USD']")
        .replace("$3", "ARRAY[0.01]")
        .replace("$4", &format!("ARRAY[{key}]"))
}

fn random_uuids(orders: u32) -> String {
    format!("ARRAY(SELECT gen_random_uuid() FROM generate_series(1, {orders}))")
}

/// The session settings of the services without the timeouts, as many clients have to wait long for the lock.
fn session_settings() -> String {
    let of_plans = SESSION_SETTINGS
        .iter()
        .filter(|(name, _)| !name.ends_with("_timeout"));
    of_plans
        .map(|(name, value)| format!("-c {name}={} ", value.replace(' ', "\\ ")))
        .collect()
}

/// The results of a run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Transactions per second, without the time to connect.
    pub per_second: f64,
    /// Median latency in µs.
    pub p50_us: f64,
    /// 99th percentile of the latency in µs.
    pub p99_us: f64,
    /// 99.9th percentile of the latency in µs.
    pub p999_us: f64,
}

/// Does the work with this many clients, each one transaction after the other.
///
/// # Errors
/// When `pgbench` is missing, or a transaction fails.
pub async fn run(
    folder: &Path,
    database: &DatabaseAddress,
    work: Work,
    clients: u32,
    amount: Amount,
) -> anyhow::Result<Outcome> {
    let folder = folder.join(uuid::Uuid::new_v4().to_string());
    let attempts = match amount {
        Amount::For(duration) => CONNECTED_PER_SECOND
            .map(|per_second| {
                let connecting = u64::from(clients) / per_second;
                format!("--time={}", duration.as_secs().max(1) + connecting)
            })
            .to_vec(),
        Amount::Transactions(count) => vec![format!("--transactions={}", (count / clients).max(1))],
    };
    for attempt in attempts {
        if let Some(outcome) = run_until(attempt, &folder, database, &work, clients).await? {
            return Ok(outcome);
        }
    }
    bail!("pgbench made no transaction")
}

/// Returns `None` when there was no time for a transaction.
async fn run_until(
    amount: String,
    folder: &Path,
    database: &DatabaseAddress,
    work: &Work,
    clients: u32,
) -> anyhow::Result<Option<Outcome>> {
    fs::create_dir(folder).context("could not make a folder for pgbench")?;
    let script = folder.join("script.sql");
    fs::write(&script, work.script()).context("could not write a script of pgbench")?;
    let mut arguments: Vec<String> = ["--no-vacuum", "--protocol=prepared", "--log"]
        .map(str::to_owned)
        .into();
    arguments.extend([
        format!("--client={clients}"),
        format!("--jobs={}", clients.min(2)),
        amount,
        format!("--file={}", script.display()),
        format!("--log-prefix={}", folder.join("log").display()),
        format!("--sampling-rate={}", work.sampled()),
        format!("--host={}", database.host),
        format!("--port={}", database.port),
        format!("--username={}", database.user),
    ]);
    let variables = work.variables();
    arguments.extend(
        variables
            .iter()
            .map(|(name, value)| format!("--define={name}={value}")),
    );
    arguments.push(database.name.clone());
    let pgbench = postgres_binaries()?.join("pgbench");
    let settings = session_settings();
    let environment = [
        ("PGPASSWORD", database.password.as_str()),
        ("PGOPTIONS", &settings),
    ];
    let output = command::output(&pgbench, &arguments, &environment).await?;
    let latencies = latencies(folder)?;
    fs::remove_dir_all(folder).context("could not delete the folder of pgbench")?;
    if output.contains(NOTHING_DONE) {
        return Ok(None);
    }
    let outcome = read(&output, &latencies).with_context(|| format!("pgbench printed:\n{output}"))?;
    Ok(Some(outcome))
}

fn read(output: &str, latencies: &[u32]) -> anyhow::Result<Outcome> {
    let number = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let failed = number("number of failed transactions: ").unwrap_or(0.0);
    ensure!(failed < 1.0, "transactions failed");
    Ok(Outcome {
        per_second: number("tps = ").context("no transactions a second")?,
        p50_us: percentile(latencies, 500)?,
        p99_us: percentile(latencies, 990)?,
        p999_us: percentile(latencies, 999)?,
    })
}

/// The latencies in µs, sorted.
fn latencies(folder: &Path) -> anyhow::Result<Vec<u32>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        let is_log = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("log"));
        if is_log {
            // The fields are client, transaction, latency in µs, and more.
            let text = fs::read_to_string(path)?;
            latencies.extend(
                text.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()),
            );
        }
    }
    latencies.sort_unstable();
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_prints_is_read() -> anyhow::Result<()> {
        let output = "number of failed transactions: 0 (0.000%)\ntps = 1234.500000 (without initial connection time)\n";
        assert_eq!(format!("{}", read(output, &[7])?.per_second), "1234.5");
        assert!(read(&output.replace(": 0 ", ": 2 "), &[7]).is_err());
        Ok(())
    }
}
