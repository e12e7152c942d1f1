//! Connections to PostgreSQL.

mod connector;
mod measure;
pub mod outage;
mod pool;
mod session;

use std::time::Duration;

use anyhow::Context as _;
use backon::Retryable as _;
use scopeguard::ScopeGuard;
use sqlx::PgConnection;

use crate::endpoints::Database;
use crate::retry;
use connector::Connector;
pub use outage::is_away;
pub use pool::{MOST_CONNECTIONS, Pool};
pub use session::SESSION_SETTINGS;

/// A server that can still speak keeps the limits of [`SESSION_SETTINGS`], and answers sooner. This one is for a host that vanished without
/// a word: its connection would stay open, and the query wait, for as long as TCP tries.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Waits until the database answers, with a growing pause and an event per try, and returns a pool of connections.
///
/// `database` is its name in the events, for example `write_model`.
///
/// # Errors
/// When the pool cannot be built.
pub async fn connect(endpoint: &Database, database: &'static str) -> anyhow::Result<Pool> {
    let pool = pool(endpoint)?;
    measure::show(&pool);
    let ask = || ask(endpoint);
    let Database { host, port, user, .. } = endpoint;
    let report = |error: &sqlx::Error, _pause| {
        tracing::warn!(event = "failed_to_connect_to_database", database, port, host, user, error = %error);
    };
    // The retry policy has no last attempt.
    if ask
        .retry(retry::for_ever(endpoint.retry_wait))
        .notify(report)
        .await
        .is_ok()
    {
        tracing::info!(event = "connected_to_database", database, port, host, user);
    }
    Ok(pool)
}

/// As [`connect`], but asks once: an operator who waits wants to hear that the database is away.
///
/// # Errors
/// When it does not answer in time, or not as our sessions need it.
pub async fn connect_once(endpoint: &Database, database: &'static str) -> anyhow::Result<Pool> {
    let Database { host, port, .. } = endpoint;
    ask(endpoint)
        .await
        .with_context(|| format!("the database {database} at {host}:{port} is away"))?;
    pool(endpoint)
}

/// A pool that connects when it is used first.
///
/// # Errors
/// When the pool cannot be built.
pub fn pool(endpoint: &Database) -> anyhow::Result<Pool> {
    Pool::new(Connector::new(endpoint, &[]), MOST_CONNECTIONS)
}

/// One connection, for what is done in one session.
///
/// # Errors
/// When none can be had within 5 s, or its session is not as [`SESSION_SETTINGS`] say.
pub async fn session(endpoint: &Database) -> sqlx::Result<PgConnection> {
    Connector::new(endpoint, &[]).connect().await
}

async fn ask(endpoint: &Database) -> sqlx::Result<()> {
    Connector::new(endpoint, &[]).ask().await
}

/// Does `work` on a connection of the pool, for at most 12 s. Where it fails, or is dropped midway, the connection is closed, whatever state it
/// is in: one that was given back with a transaction open would keep its locks, and fail all that come after.
///
/// # Errors
/// Those of `work`; [`sqlx::Error::PoolTimedOut`] where no connection can be had, and [`sqlx::Error::Io`] where the server fell silent.
pub async fn with_connection<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut held = scopeguard::guard(pool.take().await?, Pool::close);
    let answered = tokio::time::timeout(ANSWER_LIMIT, work(held.connection())).await;
    let outcome = answered
        .unwrap_or_else(|_| Err(connector::silent()))
        .inspect_err(|error| pool.learn_from(error))?;
    pool.keep(ScopeGuard::into_inner(held));
    Ok(outcome)
}

/// Does the `work` that is made for it, which only reads, on a connection of the pool as [`with_connection`] does, and once more on another one where the first was
/// found to be lost, or to keep outdated plans.
///
/// # Errors
/// As [`with_connection`].
pub async fn read<T, W>(pool: &Pool, work: impl Fn() -> W) -> sqlx::Result<T>
where
    W: AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
{
    let mut tries = outage::Tries::default();
    loop {
        match with_connection(pool, work()).await {
            Err(error) if tries.once_more(&error) => {}
            outcome => return outcome,
        }
    }
}
