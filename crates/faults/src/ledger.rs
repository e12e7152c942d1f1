//! What clients asked for and what they were told: the only record outside the system.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use uuid::Uuid;

/// The fields that identify one order for ever. All orders belong to one client, so the client is left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// ISO 4217 code.
    pub currency: &'static str,
    /// The amount in hundredths.
    pub cents: u64,
    /// The idempotence key.
    pub key: Uuid,
}

impl Identity {
    /// The amount with two decimals, as in the database.
    #[must_use]
    pub fn amount(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    /// The same amount in its shortest form: `1`, `1.5`, `1.25`.
    #[must_use]
    pub fn short_amount(&self) -> String {
        let text = self.amount();
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// An order as it was answered to a client. Every field is the text of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Order {
    /// External id.
    pub id: Uuid,
    /// UTC, with microseconds.
    pub created_at: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Two decimals.
    pub currency_amount: String,
    /// Eight decimals.
    pub btc_rate: String,
    /// Eight decimals.
    pub btc_amount: String,
}

/// The outcome of a request, as far as the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `200`: the order was accepted.
    Acknowledged(Order),
    /// `409`: the order does not fit under the cap.
    Refused,
    /// `409`: the request made this order, which was then voided.
    Voided {
        /// The external id of the order.
        id: Uuid,
        /// Why it was voided.
        reason: String,
    },
    /// No answer, or `5xx`, with the reason: the order may have been accepted or not.
    Unknown(String),
}

/// One request and its outcome.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was asked for.
    pub identity: Identity,
    /// The index of the fault that was active when it was sent. `None` if none was active.
    pub fault: Option<usize>,
    /// When it was sent.
    pub sent_at: Instant,
    /// How long the answer took.
    pub took: Duration,
    /// The outcome.
    pub outcome: Outcome,
}

impl Entry {
    /// When it was answered, or given up.
    #[must_use]
    pub fn ended_at(&self) -> Instant {
        self.sent_at + self.took
    }
}

/// All requests of a run.
#[derive(Debug)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    period: Mutex<Period>,
}

/// A period with one active fault, or with none.
#[derive(Debug, Clone, Copy)]
struct Period {
    fault: Option<usize>,
    since: Instant,
}

/// A request in flight.
#[derive(Debug)]
pub struct Sent {
    at: Instant,
    period: Period,
}

impl Default for Ledger {
    fn default() -> Self {
        let period = Period {
            fault: None,
            since: Instant::now(),
        };
        Self {
            entries: Mutex::default(),
            period: Mutex::new(period),
        }
    }
}

impl Ledger {
    /// From now on this fault is active, or none.
    pub fn set_active_fault(&self, fault: Option<usize>) {
        *locked(&self.period) = Period {
            fault,
            since: Instant::now(),
        };
    }

    /// To be called before a request is sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        Sent {
            at: Instant::now(),
            period: *locked(&self.period),
        }
    }

    /// Records a request. Returns whether it has no outcome although no fault was active while it was in flight or shortly before.
    pub fn record(&self, identity: Identity, sent: &Sent, outcome: Outcome) -> bool {
        // A fault may have broken a connection of the client, which the next request then uses.
        const AFTER_EFFECT: Duration = Duration::from_secs(1);
        let calm = sent.period.fault.is_none()
            && sent.at.duration_since(sent.period.since) > AFTER_EFFECT
            && locked(&self.period).fault.is_none();
        let unexplained = calm && matches!(outcome, Outcome::Unknown(_));
        locked(&self.entries).push(Entry {
            identity,
            fault: sent.period.fault,
            sent_at: sent.at,
            took: sent.at.elapsed(),
            outcome,
        });
        unexplained
    }

    /// One of the latest identities, at random, for a repeat.
    #[must_use]
    pub fn recent(&self, random: &mut fastrand::Rng) -> Option<Identity> {
        const RECENT: usize = 300;
        let entries = locked(&self.entries);
        let from = entries.len().saturating_sub(RECENT);
        random
            .choice(&entries[from..])
            .map(|entry| entry.identity.clone())
    }

    /// All entries so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        locked(&self.entries).clone()
    }
}

/// A poisoned lock only means that a task panicked, which fails the run by itself.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cents: u64) -> Identity {
        Identity {
            currency: "USD",
            cents,
            key: Uuid::nil(),
        }
    }

    #[test]
    fn an_amount_has_two_forms() {
        for (cents, amount, short) in [
            (1, "0.01", "0.01"),
            (100, "1.00", "1"),
            (12_050, "120.50", "120.5"),
        ] {
            assert_eq!(identity(cents).amount(), amount);
            assert_eq!(identity(cents).short_amount(), short);
        }
    }

    #[test]
    fn a_request_without_an_outcome_is_explained_by_a_fault() {
        let ledger = Ledger::default();
        ledger.set_active_fault(Some(0));
        let sent = ledger.sent();
        ledger.set_active_fault(None);
        assert!(!ledger.record(identity(1), &sent, Outcome::Unknown("no answer".to_owned())));
        assert_eq!(ledger.entries()[0].fault, Some(0));
    }

    #[test]
    fn a_request_without_an_outcome_while_no_fault_is_active_is_not_explained() {
        let ledger = Ledger::default();
        let mut sent = ledger.sent();
        sent.at += Duration::from_secs(2);
        assert!(ledger.record(identity(1), &sent, Outcome::Unknown("no answer".to_owned())));
        assert!(!ledger.record(identity(1), &sent, Outcome::Refused));
    }
}
