//! Waits until an order is projected, for a client that reads what it has just written; see `docs/decisions/0021-a-client-can-wait-for-its-own-order.md`.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use common::coalesce::Coalesced;
use common::database::{self, Pool};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use crate::db::{self, OrderReference};
use crate::error::ApiError;
use crate::metrics::METRICS;

/// How long a request waits at most, with all look-ups. A service that stops answers the requests in flight for longer than this.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A request looks at every multiple of its pause since the start of the process, and the pause doubles each time: most orders are there after
/// some milliseconds, the others much later. So all look at the same times, however many wait, and share a statement.
const FIRST_PAUSE_MS: u64 = 5;
const MAX_PAUSE_MS: u64 = 200;

/// How many requests of a process may wait. Each keeps a connection of its client for so long, and the process has some two thousand of
/// those: most stay free for clients that do not wait.
const MAX_WAITING: usize = 500;

/// The maximum number of orders in one statement.
const MAX_BATCH: usize = 500;

type IsProjected = Result<bool, Arc<sqlx::Error>>;

/// Waits for orders in the read model; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    /// Look-ups at the same time share a statement. So all who wait need one connection of the pool, and only while a statement runs.
    look_ups: Coalesced<OrderReference, IsProjected>,
    waiting: Arc<Semaphore>,
    started: Instant,
}

impl Arrivals {
    /// Of this database. Must be called inside the async runtime.
    pub(crate) fn new(read_model: Pool) -> Self {
        Self {
            look_ups: Coalesced::new(MAX_BATCH, move |orders| {
                let read_model = read_model.clone();
                async move { look_up(&read_model, &orders).await }
            }),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            started: Instant::now(),
        }
    }

    /// Returns as soon as the order is in the read model. Pages that are read from then on contain it, unless it is voided.
    ///
    /// # Errors
    /// When the client has no such order in the read model within 2 s, when too many requests wait already, and when the read model is away.
    pub(crate) async fn wait_for(&self, order: OrderReference) -> Result<(), ApiError> {
        let begun = Instant::now();
        let mut is_missing = false;
        let arrived = timeout(MAX_WAIT, self.arrives(order, &mut is_missing)).await;
        let outcome = match arrived {
            Ok(outcome) => outcome,
            Err(_) if is_missing => Err(ApiError::NotProjected),
            Err(_) => {
                let silence =
                    io::Error::new(ErrorKind::TimedOut, "no answer to the first look-up of an order");
                Err(Arc::new(sqlx::Error::Io(silence)).into())
            }
        };
        METRICS.waited(begun.elapsed(), &outcome);
        outcome
    }

    /// Looks until the order is there. `is_missing` is set once it was not.
    async fn arrives(&self, order: OrderReference, is_missing: &mut bool) -> Result<(), ApiError> {
        if self.is_projected(order).await? {
            return Ok(());
        }
        *is_missing = true;
        let _waiting = self.waiting.try_acquire().map_err(|_| ApiError::TooManyWait)?;
        let mut pause_ms = FIRST_PAUSE_MS;
        loop {
            sleep_until(self.next_multiple(pause_ms)).await;
            if self.is_projected(order).await? {
                return Ok(());
            }
            pause_ms = MAX_PAUSE_MS.min(pause_ms * 2);
        }
    }

    /// The next time that is a multiple of this pause since the start.
    fn next_multiple(&self, pause_ms: u64) -> Instant {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        self.started + Duration::from_millis(elapsed_ms - elapsed_ms % pause_ms + pause_ms)
    }

    async fn is_projected(&self, order: OrderReference) -> IsProjected {
        let interrupted = || Err(Arc::new(sqlx::Error::WorkerCrashed));
        self.look_ups.ask(order).await.unwrap_or_else(interrupted)
    }
}

async fn look_up(read_model: &Pool, orders: &[OrderReference]) -> Vec<IsProjected> {
    let projected = database::read(read_model, || {
        async |connection: &mut PgConnection| db::are_projected(connection, orders).await
    });
    match projected.await {
        Ok(projected) => projected.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Arc::new(error)); orders.len()],
    }
}
