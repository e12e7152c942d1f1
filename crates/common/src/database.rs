//! Connections to PostgreSQL.

mod measure;
pub mod outage;
mod pool;
mod pulse;

use std::time::Duration;

use anyhow::Context as _;
use backon::Retryable as _;
use scopeguard::ScopeGuard;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::endpoints::Database;
use crate::retry;
pub use outage::is_away;
pub use pool::Pool;
pub(crate) use pulse::Pulse;

/// Connections of one process, besides those of its tasks with settings of their own; a few suffice, as reads, writes and projections go in
/// batches.
pub const MOST_CONNECTIONS: u32 = 10;

/// A request that cannot get a connection within this time is refused, to be tried again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that accepts and then says nothing must not hold up the start for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that can still speak keeps the limits below, and answers sooner. This one is for a host that vanished without a word: its
/// connection would stay open, and the query wait, for as long as TCP tries.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Limits that the server keeps for us, because a query that is given up here goes on there; and its plans. Each statement has one good plan
/// for all values, and making it again costs more than following it. It may be made when a table is nearly empty, and reading that from end
/// to end looks cheap: it must not be read so when it is full. The price that PostgreSQL sets on reading so, where there is no other way (the
/// one row of a total), would make it compile a plan each time it is followed (measured: 20 ms an order).
pub const SESSION_SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// Waits until the database answers, with a growing pause and an event per try, and returns a pool of connections.
///
/// `database` is its name in the events, for example `write_model`.
pub async fn connect(endpoint: &Database, database: &'static str) -> Pool {
    let pool = pool(&options(endpoint), endpoint);
    measure::show(&pool);
    // Each time with the password as it is then.
    let ask = || async { ask(&options(endpoint)).await };
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
    pool
}

/// As [`connect`], but asks once: an operator who waits wants to hear that the database is away.
///
/// # Errors
/// When it does not answer within 5 s.
pub async fn connect_once(endpoint: &Database, database: &'static str) -> anyhow::Result<Pool> {
    let options = options(endpoint);
    let Database { host, port, .. } = endpoint;
    ask(&options)
        .await
        .with_context(|| format!("the database {database} at {host}:{port} is away"))?;
    Ok(pool(&options, endpoint))
}

fn options(endpoint: &Database) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&endpoint.host)
        .port(endpoint.port)
        .database(&endpoint.name)
        .username(&endpoint.user)
        .password(&endpoint.password.expose())
        .options(SESSION_SETTINGS)
}

fn pool(options: &PgConnectOptions, endpoint: &Database) -> Pool {
    let connections = PgPoolOptions::new()
        .max_connections(MOST_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.clone());
    Pool::new(connections, endpoint.password.clone())
}

async fn ask(options: &PgConnectOptions) -> sqlx::Result<()> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    connected.map_err(|_| sqlx::Error::PoolTimedOut)??.close().await
}

/// Does `work` on a connection of the pool, for at most 12 s. Where it fails, or is dropped midway, the connection is closed, whatever state it
/// is in: one that was given back with a transaction open would keep its locks, and fail all that come after (sqlx's ping does not see it).
///
/// # Errors
/// Those of `work`; [`sqlx::Error::PoolTimedOut`] where no connection can be had, and [`sqlx::Error::Io`] where the server fell silent.
pub async fn with_connection<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut held = scopeguard::guard(pool.take().await?, |held| pool.close(held));
    let answered = tokio::time::timeout(ANSWER_LIMIT, work(held.connection())).await;
    let outcome = answered.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
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
