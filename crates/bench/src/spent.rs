//! The cost of orders, as the servers and the kernel count it.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Server, Service, wait_until};
use serde_json::Value;
use sqlx::PgPool;

use crate::management;
use crate::processes;

/// Parameters of both instances that load the library that counts statements. It counts none at first, because counting has a cost.
pub const PARAMETERS: [(&str, &str); 2] = [
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "none"),
];

/// Makes RabbitMQ's connections report their counts every second instead of every five, in ms.
pub const BROKER_SETTING: (&str, &str) = ("collect_statistics_interval", "1000");

/// The management interface collects the reports at the same interval, and samples them every 5 s (`sample_retention_policies`): at most
/// 7 s, plus a margin.
const BROKER_REPORTS_WITHIN: Duration = Duration::from_secs(8);

/// Limit for the end of sessions whose client is gone.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()";

const SERVERS: [(&str, Server); 3] = [
    ("PostgreSQL of the write model", Server::WriteModel),
    ("PostgreSQL of the read model", Server::ReadModel),
    ("RabbitMQ", Server::Broker),
];

/// Bytes of WAL written so far.
const LOG_BYTES: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";

/// In the text of each of our own statements that runs while statements are counted.
const OUR_STATEMENT: &str = "/* bench */";

const COUNT_FROM_HERE_ON: &str = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET pg_stat_statements.track = top', current_database()); END $$";

/// Statements of clients, without those within functions and triggers, and without our own.
const STATEMENTS: &str = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements AS counted JOIN pg_database ON pg_database.oid = counted.dbid
     WHERE datname = current_database() AND strpos(query, $1) = 0 AND strpos(query, 'pg_stat_statements') = 0";

/// How often the WAL was flushed to disk. Read as JSON, because PostgreSQL 18 has the count elsewhere.
const FLUSHES: &str = "SELECT (to_jsonb(counted) ->> 'wal_sync')::bigint FROM pg_stat_wal AS counted";

/// Counts that are available at once.
#[derive(Debug)]
pub struct Spent {
    /// CPU time of each process, including its descendants.
    pub cpu: Vec<(&'static str, Duration)>,
    /// One per instance.
    pub models: [Counted; 2],
}

/// Counts of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Bytes of write-ahead log.
    pub log_bytes: u64,
    /// Statements of the services.
    pub statements: u64,
}

/// Counts that are available only when they have been reported.
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// How often each instance flushed its WAL to disk.
    pub flushes: [u64; 2],
    /// Bytes that the broker received from clients of our virtual host.
    pub broker_received: u64,
    /// Bytes that it sent to them.
    pub broker_sent: u64,
}

/// Makes both models count the statements of new sessions. Their instances must have been started with [`PARAMETERS`].
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
    /// The counts so far.
    ///
    /// # Errors
    /// When a process does not run, or a server does not answer.
    pub async fn so_far(cluster: &Cluster) -> anyhow::Result<Self> {
        let service_cpu = |service: Service| {
            let pid = cluster.pid(service);
            let pid = pid.with_context(|| format!("{} does not run", service.name()))?;
            Ok((service.name(), processes::usage(pid)?.cpu))
        };
        let services = Service::OF_ORDERS.into_iter().map(service_cpu);
        let servers = SERVERS.map(|(name, server)| Ok((name, server_cpu(cluster, server)?)));
        let cpu = services.chain(servers).collect::<anyhow::Result<_>>()?;
        let [write_model, read_model] = models(cluster);
        Ok(Self {
            cpu,
            models: [counted(write_model).await?, counted(read_model).await?],
        })
    }
}

impl Reported {
    /// All counts, including those that would be reported later. The services are restarted, because sessions report their counts when they
    /// end, and idle ones only after 10 s (`PGSTAT_IDLE_INTERVAL`). On return the services run again.
    ///
    /// # Errors
    /// When a server does not answer, or a service does not stop or start.
    pub async fn to_the_end(cluster: &Cluster) -> anyhow::Result<Self> {
        tokio::time::sleep(BROKER_REPORTS_WITHIN).await;
        // The counts of a connection are gone when it ends.
        let broker = Self::so_far(cluster).await?;
        for service in Service::OF_ORDERS {
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
        for service in Service::OF_ORDERS {
            cluster.start_service(service).await?;
        }
        Ok(Self { flushes, ..broker })
    }

    /// The counts that were reported so far.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn so_far(cluster: &Cluster) -> anyhow::Result<Self> {
        let [write_model, read_model] = models(cluster);
        let connections = management::get(cluster, "vhosts/{vhost}/connections").await?;
        let connections = connections.as_array().context("no list of connections")?;
        // A new connection has no counts yet.
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

/// CPU time of a server so far, including its descendants.
///
/// # Errors
/// When it does not run.
pub fn server_cpu(cluster: &Cluster, server: Server) -> anyhow::Result<Duration> {
    let pid = cluster.server_pid(server);
    let pid = pid.with_context(|| format!("{server:?} does not run"))?;
    Ok(processes::usage(pid)?.cpu)
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
    let flushes =
        flushes.context("this version of PostgreSQL does not count flushes of the WAL in pg_stat_wal")?;
    Ok(u64::try_from(flushes)?)
}
