//! The invariants, and the violations that were found.

use std::fmt;
use std::sync::Mutex;

use crate::ledger::locked;

/// The invariants that every run checks. Named as in `docs/RELIABILITY.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No answer is `500`, and nothing fails while no fault is active.
    I0,
    /// Every acknowledged order is in the write model, with exactly the amounts that were answered.
    I1,
    /// At most one order per client, currency, amount and key.
    I2,
    /// In every snapshot the total equals the sum of the orders that are not voided and is at most 100.
    I3,
    /// The read model equals the write model, field by field, and `verify` finds no difference.
    I4,
    /// The outbox is empty, and the dead letters are exactly the messages that were poisoned on purpose.
    I5,
    /// The pages show every order that is not voided once, newest first.
    I6,
    /// Repeating a request with an unknown outcome yields one order, and every later repeat the same answer.
    I7,
    /// The cluster recovers within 30 s of the fault's end, without help.
    I8,
    /// Each process uses about as much memory, open files, threads and tasks as before.
    I9,
    /// No connection is left idle in a transaction.
    I10,
    /// Misbehaving clients do not slow down the others: their p99 is at most three times the undisturbed one.
    I11,
    /// What a service holds for clients or messages fits into the memory of its container.
    I12,
    /// A service whose dependency is unusable reports it at `/readyz`.
    I13,
    /// Messages that can never be applied do not delay others, wherever they wait.
    I14,
    /// Of two relays one works. The other publishes nothing until it takes over.
    I15,
    /// What the operator voided is voided once, with the reason and time that the operator was told, and nothing else is voided.
    I16,
    /// A request whose order is voided is answered `409` with the reason, by the time that its void is known.
    I17,
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// The violations that were found.
#[derive(Debug, Default)]
pub struct Violations(Mutex<Vec<(Invariant, String)>>);

impl Violations {
    /// Records a violation.
    pub fn add(&self, invariant: Invariant, what: impl Into<String>) {
        locked(&self.0).push((invariant, what.into()));
    }

    /// Whether none was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    /// One sentence per violation. Of each invariant only the first few are shown, the others are counted.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        const MAX_SHOWN: usize = 5;
        let mut all = locked(&self.0).clone();
        all.sort_by_key(|(invariant, _)| *invariant);
        let kinds = all.chunk_by(|(one, _), (other, _)| one == other);
        let mut sentences = Vec::new();
        for kind in kinds {
            let shown = kind.iter().take(MAX_SHOWN);
            sentences.extend(shown.map(|(invariant, what)| format!("{invariant}: {what}")));
            if kind.len() > MAX_SHOWN {
                sentences.push(format!("{}: and {} more", kind[0].0, kind.len() - MAX_SHOWN));
            }
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_violations_are_counted_not_listed() {
        let violations = Violations::default();
        for number in 0..9 {
            violations.add(Invariant::I3, format!("snapshot {number}"));
        }
        violations.add(Invariant::I1, "an order is lost");
        let sentences = violations.sentences();
        assert_eq!(sentences[0], "I1: an order is lost");
        assert_eq!(sentences.len(), 7);
        assert_eq!(sentences[6], "I3: and 4 more");
    }
}
