//! Connections that are used again and again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool, Postgres};

use super::measure;

/// After this long a connection goes through the pool again, which closes those that are broken or old.
const IN_HAND_FOR: Duration = Duration::from_secs(1);

/// A pool of connections; cheap to clone. Those just used are kept in hand, the last one first: sqlx asks the server whenever a connection
/// is taken from its pool and whenever it is given back, two round trips around one that does the work.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: PgPool,
    in_hand: Arc<Mutex<Vec<Held>>>,
}

/// A connection of the pool.
#[derive(Debug)]
pub(super) struct Held {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(connections: PgPool) -> Self {
        Self {
            connections,
            in_hand: Arc::default(),
        }
    }

    /// Connections of their own to the same database, with settings of PostgreSQL.
    #[must_use]
    pub fn with_settings(&self, settings: &[(&str, &str)]) -> Self {
        let server = PgConnectOptions::clone(&self.connections.connect_options());
        let options = self.connections.options().clone();
        let pool = Self::new(options.connect_lazy_with(server.options(settings.iter().copied())));
        measure::show(&pool);
        pool
    }

    pub(super) fn connections(&self) -> &PgPool {
        &self.connections
    }

    /// How many connections are in hand and not in use.
    pub(super) fn in_hand(&self) -> usize {
        self.held().len()
    }

    /// The connection used last, or one of the pool's.
    pub(super) async fn take(&self) -> sqlx::Result<Held> {
        let last = self.held().pop();
        if let Some(held) = last
            && held.since.elapsed() < IN_HAND_FOR
        {
            return Ok(held);
        }
        Ok(Held {
            connection: measure::acquire(&self.connections).await?,
            since: Instant::now(),
        })
    }

    /// Keeps a connection in hand that has done its work. One that failed is closed instead.
    pub(super) fn keep(&self, held: Held) {
        self.held().push(held);
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Closes it, whatever state it is in.
    pub(super) fn close(self) {
        drop(self.connection.detach());
    }
}
