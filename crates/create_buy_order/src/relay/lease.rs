//! This relay's hold on the lease.

use std::time::{Duration, Instant};

use common::database::{Pool, with_connection};
use uuid::Uuid;

use crate::db;

/// After the death of a relay its messages wait so long for another one. A relay that outlives its term only repeats messages.
const TERM: Duration = Duration::from_secs(5);

/// Several times within a term, so that one renewal may fail.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Lease<'a> {
    pool: &'a Pool,
    holder: Uuid,
    renewed_at: Option<Instant>,
}

impl<'a> Lease<'a> {
    pub(super) fn new(pool: &'a Pool) -> Self {
        Self {
            pool,
            holder: Uuid::new_v4(),
            renewed_at: None,
        }
    }

    /// Whether the lease is ours; takes or renews it where it is time to.
    ///
    /// # Errors
    /// When the write model is away.
    pub(super) async fn hold(&mut self) -> sqlx::Result<bool> {
        if self.renewed_at.is_some_and(|at| at.elapsed() < RENEWED_EVERY) {
            return Ok(true);
        }
        let asked_at = Instant::now();
        let was_ours = self.renewed_at.take().is_some();
        let is_ours = with_connection(self.pool, async |connection| {
            db::lease::hold(connection, self.holder, TERM).await
        })
        .await?;
        self.renewed_at = is_ours.then_some(asked_at);
        if is_ours && !was_ours {
            tracing::info!(event = "outbox_relay_works", holder = %self.holder);
        } else if was_ours && !is_ours {
            tracing::info!(event = "outbox_relay_stands_by", holder = %self.holder);
        }
        Ok(is_ours)
    }

    /// Lets another relay work at once, instead of at the end of the term.
    pub(super) async fn give_back(&mut self) {
        if self.renewed_at.take().is_some() {
            // Where this fails the term ends by itself.
            let _ = with_connection(self.pool, async |connection| {
                db::lease::give_back(connection, self.holder).await
            })
            .await;
        }
    }
}
