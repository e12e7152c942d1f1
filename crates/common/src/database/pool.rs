//! Connections that are used again and again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::measure;
use crate::env::Secret;

/// After this long a connection goes through the pool again, which closes those that are broken or old.
const IN_HAND_FOR: Duration = Duration::from_secs(1);

/// For a task that uses one at a time; another while that one is being closed.
const CONNECTIONS_OF_A_TASK: u32 = 2;

/// A pool of connections; cheap to clone. Those just used are kept in hand, the last one first: sqlx asks the server whenever a connection
/// is taken from its pool and whenever it is given back, two round trips around one that does the work.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: PgPool,
    /// As many as connections. Who waits for one is woken when it is in hand, of which sqlx knows nothing.
    turns: Arc<Semaphore>,
    password: Secret,
    in_hand: Arc<Mutex<Vec<InHand>>>,
}

#[derive(Debug)]
struct InHand {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl InHand {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < IN_HAND_FOR
    }
}

/// A connection of the pool, in use.
#[derive(Debug)]
pub(super) struct Held {
    connection: InHand,
    turn: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(connections: PgPool, password: Secret) -> Self {
        let most = usize::try_from(connections.options().get_max_connections()).unwrap_or(usize::MAX);
        Self {
            connections,
            turns: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            password,
            in_hand: Arc::default(),
        }
    }

    /// Connections to the same database with settings of PostgreSQL, for a task that uses one at a time.
    #[must_use]
    pub fn with_settings(&self, settings: &[(&str, &str)]) -> Self {
        let server = PgConnectOptions::clone(&self.connections.connect_options());
        let options = self.connections.options().clone();
        let options = options.max_connections(CONNECTIONS_OF_A_TASK);
        let connections = options.connect_lazy_with(server.options(settings.iter().copied()));
        let pool = Self::new(connections, self.password.clone());
        measure::show(&pool);
        pool
    }

    pub(super) fn connections(&self) -> &PgPool {
        &self.connections
    }

    /// How many connections are in hand and not in use.
    pub(super) fn count_in_hand(&self) -> usize {
        self.in_hand().len()
    }

    /// The connection used last, or one of the pool's.
    pub(super) async fn take(&self) -> sqlx::Result<Held> {
        let limit = self.connections.options().get_acquire_timeout();
        let taken = timeout(limit, self.next());
        measure::acquiring(&self.connections, async {
            taken.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
        })
        .await
    }

    async fn next(&self) -> sqlx::Result<Held> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| sqlx::Error::PoolClosed)?;
        let last = self.in_hand().pop();
        let connection = match last.filter(InHand::is_fresh) {
            Some(last) => last,
            None => {
                // The pool may open a connection: with the password as it is now.
                let options = PgConnectOptions::clone(&self.connections.connect_options());
                let password = self.password.expose();
                self.connections.set_connect_options(options.password(&password));
                InHand {
                    connection: self.connections.acquire().await?,
                    since: Instant::now(),
                }
            }
        };
        Ok(Held { connection, turn })
    }

    /// Keeps a connection in hand that has done its work, unless it is time that it goes through the pool again; so do others that were not
    /// used meanwhile.
    pub(super) fn keep(&self, held: Held) {
        let Held { connection, turn } = held;
        let mut in_hand = self.in_hand();
        in_hand.push(connection);
        in_hand.retain(InHand::is_fresh);
        drop(in_hand);
        // Only now: whose turn it is finds the connection.
        drop(turn);
    }

    /// Closes a connection that failed, whatever state it is in. Those in hand go through the pool again: what broke one may have broken all.
    pub(super) fn close(&self, held: Held) {
        self.in_hand().clear();
        drop(held.connection.connection.detach());
    }

    fn in_hand(&self) -> MutexGuard<'_, Vec<InHand>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection.connection
    }
}
