//! The lease that one relay holds at a time.

use std::time::{Duration, Instant};

use common::database::{Pool, with_connection};
use uuid::Uuid;

use crate::db;

/// How long messages wait for another relay after the death of the one that held the lease. A relay that works on after its term only
/// repeats messages.
const TERM: Duration = Duration::from_secs(5);

/// Several renewals fit into a term, so that one may fail.
const RENEWAL: Duration = Duration::from_secs(1);

pub(super) struct Lease {
    pool: Pool,
    holder: Uuid,
    /// Nothing while another relay holds the lease.
    renewed_at: Option<Instant>,
}

impl Lease {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            holder: Uuid::new_v4(),
            renewed_at: None,
        }
    }

    /// Takes the lease, or renews it when it is time to. Returns whether it is ours.
    pub(super) async fn hold(&mut self) -> sqlx::Result<bool> {
        if self.renewed_at.is_some_and(|at| at.elapsed() < RENEWAL) {
            return Ok(true);
        }
        let asked_at = Instant::now();
        let was_ours = self.renewed_at.take().is_some();
        let is_ours = with_connection(&self.pool, async |connection| {
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
    pub(super) async fn release(&mut self) {
        if self.renewed_at.take().is_some() {
            // If this fails, the term ends by itself.
            let _ = with_connection(&self.pool, async |connection| {
                db::lease::release(connection, self.holder).await
            })
            .await;
        }
    }
}
