//! Connections to PostgreSQL.

mod connector;
mod metrics;
pub mod outage;
mod pool;
mod session;

use std::time::Duration;

use anyhow::Context as _;
use backon::Retryable as _;
use sqlx::PgConnection;

use crate::endpoints::Database;
use crate::retry;
use connector::Connector;
pub use outage::{error_type, is_transient};
pub use pool::{MAX_CONNECTIONS, Pool};
pub use session::SESSION_SETTINGS;

/// A server that still works enforces the timeouts of [`SESSION_SETTINGS`], which are shorter. This one is for a host that vanished: without
/// it a query would wait for as long as TCP retries.
const QUERY_TIMEOUT: Duration = Duration::from_secs(12);

/// Waits until the database answers, with a growing pause and an event per attempt, and returns a pool of connections.
///
/// `database` is its name in the events, for example `write_model`.
///
/// # Errors
/// When the pool cannot be built.
pub async fn connect(endpoint: &Database, database: &'static str) -> anyhow::Result<Pool> {
    let pool = pool(endpoint)?;
    metrics::register(&pool);
    let check = || async { Connector::new(endpoint, &[]).check().await };
    let Database { host, port, user, .. } = endpoint;
    let report = |error: &sqlx::Error, _pause| {
        tracing::warn!(event = "failed_to_connect_to_database", database, port, host, user, error = %error);
    };
    // The retry policy has no last attempt.
    if check
        .retry(retry::for_ever(endpoint.retry_wait))
        .notify(report)
        .await
        .is_ok()
    {
        tracing::info!(event = "connected_to_database", database, port, host, user);
    }
    Ok(pool)
}

/// As [`connect`], but with one attempt: an operator at a terminal wants to know at once that the database is away.
///
/// # Errors
/// When the database does not answer in time, or its sessions are not as [`SESSION_SETTINGS`] say.
pub async fn connect_once(endpoint: &Database, database: &'static str) -> anyhow::Result<Pool> {
    let Database { host, port, .. } = endpoint;
    Connector::new(endpoint, &[])
        .check()
        .await
        .with_context(|| format!("the database {database} at {host}:{port} is away"))?;
    pool(endpoint)
}

/// A pool that connects when it is first used.
///
/// # Errors
/// When the pool cannot be built.
pub fn pool(endpoint: &Database) -> anyhow::Result<Pool> {
    Pool::new(Connector::new(endpoint, &[]), MAX_CONNECTIONS)
}

/// One connection outside of any pool, for work that needs one session.
///
/// # Errors
/// When no connection can be made within 5 s, or its session is not as [`SESSION_SETTINGS`] say.
pub async fn session(endpoint: &Database) -> sqlx::Result<PgConnection> {
    Connector::new(endpoint, &[]).connect().await
}

/// Runs `work` on a connection of the pool, for at most 12 s. If it fails or is dropped midway, the connection is closed: one that went back
/// to the pool with an open transaction would keep its locks and fail every later user.
///
/// # Errors
/// Those of `work`; [`sqlx::Error::PoolTimedOut`] when no connection is available, and [`sqlx::Error::Io`] when the server does not answer.
pub async fn with_connection<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let connection = pool.acquire().await?;
    pool.run(connection, QUERY_TIMEOUT, work).await
}

/// Runs `work`, which only reads, as [`with_connection`] does. Runs it again on another connection if the first one was lost or had an
/// outdated plan.
///
/// # Errors
/// As [`with_connection`].
pub async fn read<T, W>(pool: &Pool, work: impl Fn() -> W) -> sqlx::Result<T>
where
    W: AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
{
    let mut retries = outage::Retries::default();
    loop {
        match with_connection(pool, work()).await {
            Err(error) if retries.allow(&error) => {}
            outcome => return outcome,
        }
    }
}
