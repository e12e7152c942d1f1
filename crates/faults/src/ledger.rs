//! What clients asked for and what they were told: the one witness that stands outside the system.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use uuid::Uuid;

/// What names one order for ever. There is one client, so it is not part of it.
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
    /// The amount as the columns spell it: two decimals.
    #[must_use]
    pub fn amount(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    /// The same amount as short as it can be spelt: `1`, `1.5`, `1.25`.
    #[must_use]
    pub fn short_amount(&self) -> String {
        let text = self.amount();
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// An order as a client was told of it. Every field is the text of the answer.
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

/// What a client knows after its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `200`: the order is in the book.
    Acknowledged(Order),
    /// `409`: the order would have passed the cap.
    Refused,
    /// No answer, or `5xx`, and why: the order may be in the book or not.
    Unknown(String),
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was asked for.
    pub identity: Identity,
    /// The fault that was at work when it was sent, by its place among the faults of the run; none while nothing was wrong.
    pub fault: Option<usize>,
    /// How long the answer took.
    pub took: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// All requests of a run.
#[derive(Debug)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    weather: Mutex<Weather>,
}

/// Whether a fault is at work.
#[derive(Debug, Clone, Copy)]
struct Weather {
    fault: Option<usize>,
    since: Instant,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Sent {
    at: Instant,
    weather: Weather,
}

impl Default for Ledger {
    fn default() -> Self {
        let weather = Weather {
            fault: None,
            since: Instant::now(),
        };
        Self {
            entries: Mutex::default(),
            weather: Mutex::new(weather),
        }
    }
}

impl Ledger {
    /// From now on this fault is at work, or none.
    pub fn fault_at_work(&self, fault: Option<usize>) {
        *locked(&self.weather) = Weather {
            fault,
            since: Instant::now(),
        };
    }

    /// To be called before a request is sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        Sent {
            at: Instant::now(),
            weather: *locked(&self.weather),
        }
    }

    /// Records a request. Answers whether it stayed without an outcome although no fault was at work while it was under way, nor shortly before.
    pub fn record(&self, identity: Identity, sent: &Sent, outcome: Outcome) -> bool {
        // What a fault left behind in a connection of the client is met by its next request.
        const AFTERMATH: Duration = Duration::from_secs(1);
        let calm = sent.weather.fault.is_none()
            && sent.at.duration_since(sent.weather.since) > AFTERMATH
            && locked(&self.weather).fault.is_none();
        let unexplained = calm && matches!(outcome, Outcome::Unknown(_));
        locked(&self.entries).push(Entry {
            identity,
            fault: sent.weather.fault,
            took: sent.at.elapsed(),
            outcome,
        });
        unexplained
    }

    /// One of the latest identities, for a repeat.
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
    fn an_amount_has_two_spellings() {
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
        ledger.fault_at_work(Some(0));
        let sent = ledger.sent();
        ledger.fault_at_work(None);
        assert!(!ledger.record(identity(1), &sent, Outcome::Unknown("no answer".to_owned())));
        assert_eq!(ledger.entries()[0].fault, Some(0));
    }

    #[test]
    fn a_request_without_an_outcome_in_calm_weather_is_not_explained() {
        let ledger = Ledger::default();
        let mut sent = ledger.sent();
        sent.at += Duration::from_secs(2);
        assert!(ledger.record(identity(1), &sent, Outcome::Unknown("no answer".to_owned())));
        assert!(!ledger.record(identity(1), &sent, Outcome::Refused));
    }
}
