//! What must hold, and what was found not to.

use std::fmt;
use std::sync::Mutex;

use crate::ledger::locked;

/// What every run checks. Named as in `docs/RELIABILITY.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No answer is `500`, and nothing fails while no fault is at work.
    I0,
    /// Every acknowledged order is in the write model, with the very amounts that were answered.
    I1,
    /// At most one order per client, currency, amount and key.
    I2,
    /// The total equals the sum, and never passes 100, in every snapshot.
    I3,
    /// The read model equals the write model, field by field.
    I4,
    /// The outbox is empty; the dead letters are just what was poisoned on purpose.
    I5,
    /// The pages show every order once, newest first.
    I6,
    /// Repeating an unknown request yields one order, and then the same answer again.
    I7,
    /// Recovery within 30 s of the fault's end, without a hand.
    I8,
    /// Memory, open files, threads and tasks of each process are back where they were.
    I9,
    /// No connection is left idle in a transaction.
    I10,
    /// Clients that behave badly do not make the others wait: p99 within three times of undisturbed.
    I11,
    /// What clients or messages have a service hold fits into its container.
    I12,
    /// A service that lacks what it needs says so at `/readyz`.
    I13,
    /// Messages that can never be applied hold up nothing, wherever they have to wait.
    I14,
    /// Of two relays one works: the other sends nothing until it takes over.
    I15,
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What was found, with the number of times.
#[derive(Debug, Default)]
pub struct Violations(Mutex<Vec<(Invariant, String)>>);

impl Violations {
    /// Notes one.
    pub fn add(&self, invariant: Invariant, what: impl Into<String>) {
        locked(&self.0).push((invariant, what.into()));
    }

    /// Whether everything held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    /// One sentence each; of a kind that was found often only the first ones.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        const OF_A_KIND: usize = 5;
        let mut all = locked(&self.0).clone();
        all.sort_by_key(|(invariant, _)| *invariant);
        let kinds = all.chunk_by(|(one, _), (other, _)| one == other);
        let mut sentences = Vec::new();
        for kind in kinds {
            let shown = kind.iter().take(OF_A_KIND);
            sentences.extend(shown.map(|(invariant, what)| format!("{invariant}: {what}")));
            if kind.len() > OF_A_KIND {
                sentences.push(format!("{}: and {} more", kind[0].0, kind.len() - OF_A_KIND));
            }
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_often_is_counted_not_listed() {
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
