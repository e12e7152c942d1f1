//! Connections that are used again and again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{
    self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts, WeakPool,
};
use deadpool::{Runtime, Status};
use scopeguard::ScopeGuard;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::connector::{Connector, silent};
use super::measure;
use crate::endpoints::Database;

/// Connections of one process, besides those of its tasks with settings of their own; a few suffice, as reads, writes and projections go in
/// batches.
pub const MOST_CONNECTIONS: u32 = 10;

/// For a task that uses one at a time; another while that one is being closed.
const CONNECTIONS_OF_A_TASK: u32 = 2;

/// A request that cannot get a connection within this time is refused, to be tried again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that refuses connections may be starting. Shorter than the above, so that the reason is told and not that time was up.
const REFUSED_FOR: Duration = Duration::from_millis(2500);
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// After this long a connection is asked for a sign of life before it is used again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
const PING_LIMIT: Duration = Duration::from_secs(1);

/// Common firewalls and load balancers forget a connection that was silent for a minute, without a word to either end.
const IDLE_FOR: Duration = Duration::from_secs(45);
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(10);

/// A server keeps what a session has learnt, in memory, for as long as it lasts. And a name may lead to another address by now.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Probes do not wait longer for a connection: see [`Pool::check`].
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// When all connections are in use and none has had an answer for this long, they wait in vain. Longer than a statement may wait for a lock:
/// that it could not be had is an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(6);

/// A pool of connections; cheap to clone. The one used last is used next, so that few stay open, and those are known to be good.
///
/// No wait is without a limit, and none is held while another task's connection is closed: closing tells the server nothing and waits for
/// nobody.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: managed::Pool<Manager>,
}

#[derive(Debug)]
struct Manager {
    connector: Connector,
    /// What was last answered before this is not used again: what broke one connection may have broken all.
    trusted_since: Mutex<Instant>,
    /// When the server last said anything, on whatever connection.
    answered_at: Mutex<Instant>,
}

/// A connection that is kept, and when it last proved to be good.
#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    made: Instant,
    answered_at: Instant,
}

/// A connection of the pool, in use. It goes back by [`Pool::keep`] alone.
#[derive(Debug)]
pub(super) struct Held(Object<Manager>);

impl Held {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }
}

/// Why a database is of no use to requests; `Display` is what a client may read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("is away")]
    Away(#[source] sqlx::Error),
    #[error("is read-only")]
    ReadOnly,
}

impl Manager {
    fn distrust_all(&self) {
        *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn note_answer(&self) {
        *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_trusted(&self, kept: &Kept) -> bool {
        kept.answered_at > *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner)
            && kept.answered_at.elapsed() < IDLE_FOR
            && kept.made.elapsed() < LIFETIME
    }
}

impl managed::Manager for Manager {
    type Type = Kept;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Kept> {
        let begun = Instant::now();
        let connection = loop {
            match self.connector.connect().await {
                Err(error) if may_be_starting(&error) && begun.elapsed() < REFUSED_FOR => {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                outcome => break outcome?,
            }
        };
        self.note_answer();
        Ok(Kept {
            connection,
            made: Instant::now(),
            answered_at: Instant::now(),
        })
    }

    async fn recycle(&self, kept: &mut Kept, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if !self.is_trusted(kept) {
            return Err(RecycleError::message("not to be trusted any more"));
        }
        if kept.answered_at.elapsed() < TRUSTED_FOR {
            return Ok(());
        }
        // Also when whoever waits for it has enough of waiting.
        let unless_it_answers = scopeguard::guard((), |()| self.distrust_all());
        let answered = timeout(PING_LIMIT, kept.connection.ping()).await;
        answered.map_err(|_| RecycleError::message("no answer"))??;
        ScopeGuard::into_inner(unless_it_answers);
        kept.answered_at = Instant::now();
        self.note_answer();
        Ok(())
    }
}

impl Pool {
    pub(super) fn new(connector: Connector, most: u32) -> anyhow::Result<Self> {
        let manager = Manager {
            connector,
            trusted_since: Mutex::new(Instant::now()),
            answered_at: Mutex::new(Instant::now()),
        };
        let connections = managed::Pool::builder(manager)
            .max_size(usize::try_from(most)?)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()?;
        tokio::spawn(close_idle(connections.weak()));
        Ok(Self { connections })
    }

    /// Connections to the same database with settings of PostgreSQL, for a task that uses one at a time. The settings may be lost on a pooler:
    /// the task must be right without them.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn with_settings(&self, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let connector = Connector::new(self.endpoint(), settings);
        let pool = Self::new(connector, CONNECTIONS_OF_A_TASK)?;
        measure::show(&pool);
        Ok(pool)
    }

    pub(super) fn endpoint(&self) -> &Database {
        self.connections.manager().connector.endpoint()
    }

    pub(super) fn status(&self) -> Status {
        self.connections.status()
    }

    /// The connection used last, or a new one.
    pub(super) async fn take(&self) -> sqlx::Result<Held> {
        measure::acquiring(self, async {
            let taken = timeout(ACQUIRE_TIMEOUT, self.connections.get()).await;
            taken
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map_err(in_sqlx)
                .map(Held)
        })
        .await
    }

    /// Keeps a connection that has done its work.
    pub(super) fn keep(&self, held: Held) {
        let Held(mut object) = held;
        object.answered_at = Instant::now();
        self.connections.manager().note_answer();
        drop(object);
    }

    /// Closes a connection that failed, whatever state it is in.
    pub(super) fn close(held: Held) {
        drop(Object::take(held.0));
    }

    /// Learns from how the work on a connection failed, for the sake of the others.
    pub(super) fn learn_from(&self, error: &sqlx::Error) {
        let manager = self.connections.manager();
        match error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                // The server ends its sessions, is no server of ours any more, or became a standby.
                if code.starts_with("57P") || code.starts_with("08") || code == "25006" {
                    manager.distrust_all();
                } else {
                    manager.note_answer();
                }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => manager.distrust_all(),
            _ => {}
        }
    }

    /// What requests would meet now, asked on one of their own connections. While all are in use, and have answers, the database is busy and
    /// not away.
    pub(crate) async fn check(&self, writes: bool) -> Result<(), Unusable> {
        let timeouts = Timeouts {
            wait: Some(PROBE_WAIT),
            create: None,
            recycle: None,
        };
        let taken = match self.connections.timeout_get(&timeouts).await {
            Ok(object) => object,
            Err(PoolError::Timeout(TimeoutType::Wait)) if self.has_answers() => return Ok(()),
            Err(error) => return Err(Unusable::Away(in_sqlx(error))),
        };
        let mut held = scopeguard::guard(Held(taken), Self::close);
        let is_read_only = timeout(PING_LIMIT, is_read_only(held.connection())).await;
        let is_read_only = is_read_only
            .unwrap_or_else(|_| Err(silent()))
            .inspect_err(|error| self.learn_from(error))
            .map_err(Unusable::Away)?;
        self.keep(ScopeGuard::into_inner(held));
        if writes && is_read_only {
            return Err(Unusable::ReadOnly);
        }
        Ok(())
    }

    fn has_answers(&self) -> bool {
        let answered_at = &self.connections.manager().answered_at;
        answered_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
            < ANSWERS_WITHIN
    }
}

/// True on a standby, too.
async fn is_read_only(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::raw_sql("SHOW transaction_read_only")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<String, _>(0)? == "on")
}

/// Those that nobody has used lately are closed before something on the way forgets them.
async fn close_idle(connections: WeakPool<Manager>) {
    loop {
        tokio::time::sleep(LOOKED_AFTER_EVERY).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let manager = connections.manager();
        drop(connections.retain(|kept, _| manager.is_trusted(kept)));
    }
}

/// Nobody listens yet, or the server says that it is not ready, or full.
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
        PoolError::Closed => sqlx::Error::PoolClosed,
        PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            sqlx::Error::PoolTimedOut
        }
    }
}
