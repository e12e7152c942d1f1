//! What an order took, as the servers and the kernel count it.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Server, Service};
use serde_json::Value;
use sqlx::PgPool;

use crate::bench::OUR_STATEMENT;
use crate::management;
use crate::processes;

/// The library that counts statements, as parameters that both instances need. It counts none until it is told to, as that costs something.
pub const PARAMETERS: [(&str, &str); 2] = [
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "none"),
];

/// How long what was counted may be on its way: an idle session of PostgreSQL reports what it counted after 10 s
/// (`PGSTAT_IDLE_INTERVAL`), a connection of RabbitMQ every 5 s (`collect_statistics_interval`).
pub const REPORTED_WITHIN: Duration = Duration::from_secs(11);

const SERVERS: [(&str, Server); 3] = [
    ("PostgreSQL of the write model", Server::WriteModel),
    ("PostgreSQL of the read model", Server::ReadModel),
    ("RabbitMQ", Server::Broker),
];

/// Log written, to the byte.
const LOG_BYTES: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";

const COUNT_FROM_HERE_ON: &str = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pg_stat_statements.track = top', current_database()); END $$";

/// Statements of clients: those of triggers and functions are not counted, and ours are left out.
const STATEMENTS: &str = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements AS counted JOIN pg_database ON pg_database.oid = counted.dbid
     WHERE datname = current_database() AND strpos(query, $1) = 0 AND strpos(query, 'pg_stat_statements') = 0";

/// Times that the log was forced to the disk. As JSON, because PostgreSQL 18 counts them elsewhere.
const FLUSHES: &str = "SELECT (to_jsonb(counted) ->> 'wal_sync')::bigint FROM pg_stat_wal AS counted";

/// What is known at once.
#[derive(Debug)]
pub struct Spent {
    /// Time on a processor, by process with all that it started.
    pub cpu: Vec<(&'static str, Duration)>,
    /// By instance.
    pub models: [Counted; 2],
}

/// What an instance counts.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Bytes of write-ahead log.
    pub log_bytes: u64,
    /// Statements of the services.
    pub statements: u64,
}

/// What is known when it has been reported: [`REPORTED_WITHIN`].
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// Times that an instance forced its log to the disk.
    pub flushes: [u64; 2],
    /// Bytes that the broker received from our virtual host's clients.
    pub broker_received: u64,
    /// Bytes that it sent to them.
    pub broker_sent: u64,
}

/// Has both models count the statements of sessions that begin from here on. Their instances must have been started with [`PARAMETERS`].
///
/// # Errors
/// When the extension is not installed.
pub async fn count_statements(cluster: &Cluster) -> anyhow::Result<()> {
    for model in models(cluster) {
        sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .execute(model)
            .await
            .context("the extension pg_stat_statements is missing: it is part of PostgreSQL's contrib")?;
        sqlx::query(COUNT_FROM_HERE_ON).execute(model).await?;
    }
    Ok(())
}

impl Spent {
    /// So far.
    ///
    /// # Errors
    /// When a process does not run, or a server does not answer.
    pub async fn so_far(cluster: &Cluster) -> anyhow::Result<Self> {
        let services = Service::ALL.map(|service| (service.name(), cluster.pid(service)));
        let servers = SERVERS.map(|(name, server)| (name, cluster.server_pid(server)));
        let cpu = |(name, pid): (&'static str, Option<u32>)| {
            let pid = pid.with_context(|| format!("{name} does not run"))?;
            Ok((name, processes::usage(pid)?.cpu))
        };
        let cpu = services.into_iter().chain(servers).map(cpu);
        let cpu = cpu.collect::<anyhow::Result<_>>()?;
        let [write_model, read_model] = models(cluster);
        Ok(Self {
            cpu,
            models: [counted(write_model).await?, counted(read_model).await?],
        })
    }
}

impl Reported {
    /// So far.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn so_far(cluster: &Cluster) -> anyhow::Result<Self> {
        let [write_model, read_model] = models(cluster);
        let connections = management::get(cluster, "vhosts/{vhost}/connections").await?;
        let connections = connections.as_array().context("no list of connections")?;
        // A connection that is new has none yet.
        let sum = |name: &str| {
            let octets = connections
                .iter()
                .filter_map(|connection: &Value| connection[name].as_u64());
            octets.sum()
        };
        Ok(Self {
            flushes: [flushes(write_model).await?, flushes(read_model).await?],
            broker_received: sum("recv_oct"),
            broker_sent: sum("send_oct"),
        })
    }
}

fn models(cluster: &Cluster) -> [&PgPool; 2] {
    [cluster.write_model(), cluster.read_model()]
}

/// Bytes of write-ahead log that the instance has written so far.
///
/// # Errors
/// When it does not answer.
pub async fn log_bytes(model: &PgPool) -> anyhow::Result<u64> {
    let log_bytes: i64 = sqlx::query_scalar(LOG_BYTES).fetch_one(model).await?;
    Ok(u64::try_from(log_bytes)?)
}

async fn counted(model: &PgPool) -> anyhow::Result<Counted> {
    let statements = sqlx::query_scalar(STATEMENTS).bind(OUR_STATEMENT);
    let statements: i64 = statements.fetch_one(model).await?;
    Ok(Counted {
        log_bytes: log_bytes(model).await?,
        statements: u64::try_from(statements)?,
    })
}

async fn flushes(model: &PgPool) -> anyhow::Result<u64> {
    let flushes: Option<i64> = sqlx::query_scalar(FLUSHES).fetch_one(model).await?;
    let flushes = flushes.context(
        "this version of PostgreSQL does not count in pg_stat_wal how often its log was forced to the disk",
    )?;
    Ok(u64::try_from(flushes)?)
}
