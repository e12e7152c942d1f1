//! The pool of connections.
//!
//! It is deadpool's pool of plain sqlx connections; sqlx's own pool is not used. deadpool queues callers, lends the connection that was used
//! last and limits their number. This file adds what neither pool does:
//!
//! - A connection whose work failed or was dropped is closed at once, and nothing more is sent on it. sqlx's pool would ping it, and sends a
//!   message when it closes one: both wait when the network drops all packets.
//! - One broken connection makes all others suspect. After a failover, one request fails and not one for each connection.
//! - A connection is pinged only after a second without use, and with a timeout.
//! - A server that refuses connections because it is starting is tried again while the request can still wait.
//! - The readiness probe uses these connections, and tells a busy database from one that is away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{
    self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts, WeakPool,
};
use futures_util::future::BoxFuture;
use opentelemetry::KeyValue;
use scopeguard::ScopeGuard;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::connector::{Connector, in_time};
use super::metrics;
use crate::endpoints::Database;
use crate::logging::chain;
use crate::readiness::Unready;

/// Connections of one process, besides those of tasks with their own settings. A few suffice: reads, writes and projections are batched.
pub const MAX_CONNECTIONS: u32 = 10;

/// For a task that uses one connection at a time; the second replaces one that is being closed.
const MAX_TASK_CONNECTIONS: u32 = 2;

/// A request that gets no connection within this time fails; the client may retry.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to retry a server that may be starting. Shorter than [`ACQUIRE_TIMEOUT`], so that the error names the reason.
const STARTING_TIMEOUT: Duration = Duration::from_millis(2500);
const STARTING_PAUSE: Duration = Duration::from_millis(100);

/// A connection that was unused for this long is pinged before its next use.
const PING_AFTER: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Common firewalls and load balancers drop a connection that was idle for a minute, and tell neither end.
const MAX_IDLE: Duration = Duration::from_secs(45);
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A server's memory for a session grows until the session ends. And the host name may have a new address.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// How long a readiness probe waits for a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// While all connections are in use, the database counts as busy if it answered within this time, else as away. Longer than a statement may
/// wait for a lock: a lock timeout is an answer, too.
const BUSY_TIMEOUT: Duration = Duration::from_secs(6);

/// A pool of connections; cheap to clone. No wait is unlimited, and closing a connection waits for nobody.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) connections: managed::Pool<Manager>,
}

#[derive(Debug)]
pub(super) struct Manager {
    connector: Connector,
    server: Mutex<Server>,
}

/// What the connections have shown of the server.
#[derive(Debug)]
struct Server {
    /// A connection whose last answer is older is not used again: the fault that broke one may have broken all.
    suspect_before: Instant,
    /// The last answer on any connection.
    answered_at: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    inner: PgConnection,
    answered_at: Instant,
}

impl Manager {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspect_all(&self) {
        self.server().suspect_before = Instant::now();
    }

    fn note_answer(&self) {
        self.server().answered_at = Instant::now();
    }

    fn is_usable(&self, connection: &Connection, metrics: &Metrics) -> bool {
        connection.answered_at > self.server().suspect_before
            && connection.answered_at.elapsed() < MAX_IDLE
            && metrics.created.elapsed() < MAX_LIFETIME
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Connection> {
        let begun = Instant::now();
        let inner = loop {
            match self.connector.connect().await {
                Err(error) if may_be_starting(&error) && begun.elapsed() < STARTING_TIMEOUT => {
                    tokio::time::sleep(STARTING_PAUSE).await;
                }
                outcome => break outcome?,
            }
        };
        self.note_answer();
        Ok(Connection {
            inner,
            answered_at: Instant::now(),
        })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if !self.is_usable(connection, metrics) {
            return Err(RecycleError::message("suspect, idle for too long, or too old"));
        }
        if connection.answered_at.elapsed() < PING_AFTER {
            return Ok(());
        }
        // A guard, because the caller may give up and drop this future.
        let suspect_all = scopeguard::guard((), |()| self.suspect_all());
        let answered = timeout(PING_TIMEOUT, connection.inner.ping()).await;
        answered.map_err(|_| RecycleError::message("no answer"))??;
        ScopeGuard::into_inner(suspect_all);
        connection.answered_at = Instant::now();
        self.note_answer();
        Ok(())
    }
}

impl Pool {
    pub(super) fn new(connector: Connector, max_connections: u32) -> anyhow::Result<Self> {
        let manager = Manager {
            connector,
            server: Mutex::new(Server {
                suspect_before: Instant::now(),
                answered_at: Instant::now(),
            }),
        };
        let connections = managed::Pool::builder(manager)
            .max_size(usize::try_from(max_connections)?)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()?;
        tokio::spawn(close_idle(connections.weak()));
        Ok(Self { connections })
    }

    /// Connections to the same database with PostgreSQL settings of their own, for a task that uses one connection at a time. A pooler may
    /// lose the settings: the task must be correct without them.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn with_settings(&self, settings: &'static [(&'static str, &'static str)]) -> anyhow::Result<Self> {
        let connector = Connector::new(self.endpoint(), settings);
        let pool = Self::new(connector, MAX_TASK_CONNECTIONS)?;
        metrics::register(&pool);
        Ok(pool)
    }

    /// Which database this is, for spans: attributes of OpenTelemetry's semantic conventions.
    #[must_use]
    pub fn span_attributes(&self) -> [KeyValue; 3] {
        let Database { host, port, name, .. } = self.endpoint();
        [
            KeyValue::new("server.address", host.clone()),
            KeyValue::new("server.port", i64::from(*port)),
            KeyValue::new("db.namespace", name.clone()),
        ]
    }

    pub(super) fn endpoint(&self) -> &Database {
        &self.connections.manager().connector.endpoint
    }

    /// The connection that was used last, so that few stay open and those are known to work; or a new one.
    pub(super) async fn acquire(&self) -> sqlx::Result<Object<Manager>> {
        let begun = Instant::now();
        let acquired = timeout(ACQUIRE_TIMEOUT, self.connections.get()).await;
        metrics::count_acquire(self, begun, matches!(acquired, Ok(Ok(_))));
        acquired.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(in_sqlx)
    }

    /// Runs `work` on a connection of this pool, which goes back only when the work succeeds.
    pub(super) async fn run<T>(
        &self,
        connection: Object<Manager>,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let close = |connection| drop(Object::take(connection));
        let mut connection = scopeguard::guard(connection, close);
        let outcome = in_time(limit, work(&mut connection.inner)).await;
        let answer = outcome.inspect_err(|error| self.note_failure(error))?;
        connection.answered_at = Instant::now();
        self.connections.manager().note_answer();
        drop(ScopeGuard::into_inner(connection));
        Ok(answer)
    }

    /// Decides what the failure on one connection says of the others.
    fn note_failure(&self, error: &sqlx::Error) {
        let manager = self.connections.manager();
        match error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                // The server shuts down or ends its sessions, a pooler lost it, or it became a standby.
                if code.starts_with("57P") || code.starts_with("08") || code == "25006" {
                    manager.suspect_all();
                } else {
                    manager.note_answer();
                }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => manager.suspect_all(),
            _ => {}
        }
    }

    /// A readiness check: the database can be read.
    pub fn readable(&self) -> impl Fn() -> BoxFuture<'static, Result<(), Unready>> + Send + Sync + use<> {
        let pool = self.clone();
        move || Box::pin(pool.clone().ready(false))
    }

    /// A readiness check: the database can be written to, which a standby cannot.
    pub fn writable(&self) -> impl Fn() -> BoxFuture<'static, Result<(), Unready>> + Send + Sync + use<> {
        let pool = self.clone();
        move || Box::pin(pool.clone().ready(true))
    }

    /// What a request would meet now, checked on one of the requests' connections. Ready, too, while all are in use and the server answers:
    /// the database is busy then, and not away.
    async fn ready(self, needs_writes: bool) -> Result<(), Unready> {
        let timeouts = Timeouts {
            wait: Some(PROBE_TIMEOUT),
            ..Timeouts::new()
        };
        let connection = match self.connections.timeout_get(&timeouts).await {
            Ok(connection) => connection,
            Err(PoolError::Timeout(TimeoutType::Wait)) if self.is_answering() => return Ok(()),
            Err(error) => return Err(away(in_sqlx(error))),
        };
        let is_read_only = self.run(connection, PING_TIMEOUT, is_read_only).await;
        if is_read_only.map_err(away)? && needs_writes {
            return Err(Unready {
                reason: "is read-only",
                info: "is read-only".to_owned(),
            });
        }
        Ok(())
    }

    fn is_answering(&self) -> bool {
        self.connections.manager().server().answered_at.elapsed() < BUSY_TIMEOUT
    }
}

fn away(error: sqlx::Error) -> Unready {
    format!("is away: {}", chain(&error)).into()
}

/// True on a standby, too.
async fn is_read_only(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::raw_sql("SHOW transaction_read_only")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<String, _>("transaction_read_only")? == "on")
}

/// Closes idle connections before a firewall drops them. Ends with the pool.
async fn close_idle(connections: WeakPool<Manager>) {
    loop {
        tokio::time::sleep(IDLE_CHECK_INTERVAL).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let manager = connections.manager();
        drop(connections.retain(|connection, metrics| manager.is_usable(connection, &metrics)));
    }
}

/// Nobody listens yet, or the server says that it is starting or has too many connections.
fn may_be_starting(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    match error {
        sqlx::Error::Io(error) => {
            matches!(
                error.kind(),
                ConnectionAborted | ConnectionRefused | ConnectionReset
            )
        }
        sqlx::Error::Database(refusal) => matches!(refusal.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

fn in_sqlx(error: PoolError<sqlx::Error>) -> sqlx::Error {
    match error {
        PoolError::Backend(error) => error,
        // What is left is a timeout: the pool is never closed, and it has a runtime and no hooks.
        _ => sqlx::Error::PoolTimedOut,
    }
}
