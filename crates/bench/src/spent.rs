//! What an order took, as the servers and the kernel count it.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Server, Service, wait_until};
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

/// Has RabbitMQ's connections report what they counted each second instead of each five, in ms.
pub const BROKER_SETTING: (&str, &str) = ("collect_statistics_interval", "1000");

/// Its management interface collects what they report as often, and takes a sample every 5 s (`sample_retention_policies`): 7 s at most, and
/// room.
const BROKER_REPORTS_WITHIN: Duration = Duration::from_secs(8);

/// For sessions whose client is gone.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()";

const SERVERS: [(&str, Server); 3] = [
    ("PostgreSQL of the write model", Server::WriteModel),
    ("PostgreSQL of the read model", Server::ReadModel),
    ("RabbitMQ", Server::Broker),
];

/// Log written, to the byte.
const LOG_BYTES: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";

const COUNT_FROM_HERE_ON: &str = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pg_stat_statements.track = top', current_database()); END $$";

/// Statements of clients: those within functions and triggers are not counted, and ours are left out.
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

/// What is known when it has been reported.
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
    /// All that was counted, also what would be reported later: the sessions of the services end, and with that they report. (One that is
    /// idle does so after 10 s, `PGSTAT_IDLE_INTERVAL`.) On return the services run again.
    ///
    /// # Errors
    /// When a server does not answer, or a service does not stop or start.
    pub async fn to_the_end(cluster: &Cluster) -> anyhow::Result<Self> {
        tokio::time::sleep(BROKER_REPORTS_WITHIN).await;
        // With a connection ends what is known of it.
        let broker = Self::so_far(cluster).await?;
        for service in Service::ALL {
            cluster.stop(service).await?;
        }
        for model in models(cluster) {
            wait_until(
                "the sessions of the services have ended",
                ENDED_WITHIN,
                async || {
                    let sessions: i64 = sqlx::query_scalar(SESSIONS).fetch_one(model).await?;
                    Ok(sessions <= i64::from(model.size()))
                },
            )
            .await?;
        }
        let [write_model, read_model] = models(cluster);
        let flushes = [flushes(write_model).await?, flushes(read_model).await?];
        for service in Service::ALL {
            cluster.start_service(service).await?;
        }
        Ok(Self { flushes, ..broker })
    }

    /// What was reported so far.
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
