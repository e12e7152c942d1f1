//! How long the events that a relay has claimed are its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::database::{Pool, with_connection};
use time::OffsetDateTime;

use crate::db::outbox::{self, Claimed};

/// The events of a relay that died wait so long for another one. A publish takes milliseconds; one that takes longer renews its lease.
pub(super) const LEASE: Duration = Duration::from_secs(8);

/// Several times within a lease, so that one renewal may fail.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(2);

/// A message that is handed over needs a moment to reach the broker, and two clocks run differently fast.
const MARGIN: Duration = Duration::from_secs(2);

/// A claim on events, as this process sees it: it counts by its own monotonic clock from before it asked, and so never longer than the
/// database does. That clock goes on while the process is frozen; the wall clock is not looked at.
#[derive(Debug)]
pub(super) struct Lease {
    ids: Vec<i64>,
    term: Mutex<Term>,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    /// What the database wrote into the rows.
    until: OffsetDateTime,
    /// Nothing when another relay has taken one of the events.
    asked_at: Option<Instant>,
}

impl Lease {
    /// The lease of events that were asked for at `asked_at`; nothing where there are no events.
    pub(super) fn of(events: &[Claimed], asked_at: Instant) -> Option<Self> {
        let until = events.first()?.claimed_until;
        Some(Self {
            ids: events.iter().map(|event| event.id).collect(),
            term: Mutex::new(Term {
                until,
                asked_at: Some(asked_at),
            }),
        })
    }

    /// `outbox.id` of the events.
    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The time in the rows by which the database knows that they are ours.
    pub(super) fn until(&self) -> OffsetDateTime {
        self.term().until
    }

    /// Whether the events are certainly still ours.
    pub(super) fn holds(&self) -> bool {
        self.term()
            .asked_at
            .is_some_and(|asked_at| asked_at.elapsed() < LEASE - MARGIN)
    }

    /// Begins a new term; where another relay has taken one of the events meanwhile, ends.
    ///
    /// # Errors
    /// When the database is away: the term stays as it was.
    pub(super) async fn renew(&self, pool: &Pool) -> sqlx::Result<()> {
        let old = self.until();
        let asked_at = Instant::now();
        let renewed = with_connection(pool, async |connection| {
            outbox::renew(connection, &self.ids, old, LEASE).await
        });
        let (until, rows) = renewed.await?.unwrap_or((old, 0));
        let all = usize::try_from(rows) == Ok(self.ids.len());
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = Term {
            until,
            asked_at: all.then_some(asked_at),
        };
        Ok(())
    }

    fn term(&self) -> Term {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
