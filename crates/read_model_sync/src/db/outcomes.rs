//! The outcome of each message of an insert that skipped some of them.

use std::collections::HashSet;

use common::buy_order_event::{BuyOrderCreated, BuyOrderVoided};

use crate::delivery::ApplyOutcome;

/// A message about the order with this id. A model stores one of each type for an id.
pub(super) trait OfOrder {
    fn id(&self) -> i64;
}

impl OfOrder for BuyOrderCreated {
    fn id(&self) -> i64 {
        self.id
    }
}

impl OfOrder for BuyOrderVoided {
    fn id(&self) -> i64 {
        self.id
    }
}

/// Those that have to be compared with what is stored: they were not inserted, or another one in the batch has the same id, and either may have
/// been inserted.
pub(super) fn doubtful<'m, T: OfOrder>(messages: &[&'m T], inserted: &HashSet<i64>) -> Vec<&'m T> {
    let ids = doubtful_ids(messages, inserted);
    let is_doubtful = |message: &&T| ids.contains(&message.id());
    messages.iter().copied().filter(is_doubtful).collect()
}

fn doubtful_ids<T: OfOrder>(messages: &[&T], inserted: &HashSet<i64>) -> HashSet<i64> {
    let mut seen = HashSet::with_capacity(messages.len());
    let repeated_or_missing = |id: &i64| !seen.insert(*id) || !inserted.contains(id);
    messages
        .iter()
        .map(|message| message.id())
        .filter(repeated_or_missing)
        .collect()
}

/// The outcome of each message; `compare` gives that of a doubtful one.
pub(super) fn outcomes<T: OfOrder>(
    messages: &[&T],
    mut inserted: HashSet<i64>,
    compare: impl Fn(&T) -> ApplyOutcome,
) -> Vec<ApplyOutcome> {
    let doubtful = doubtful_ids(messages, &inserted);
    let outcome = |message: &&T| {
        if !doubtful.contains(&message.id()) {
            return ApplyOutcome::Applied;
        }
        match compare(message) {
            // Of equal messages in one batch, the first is the one that was inserted.
            ApplyOutcome::AlreadyApplied if inserted.remove(&message.id()) => ApplyOutcome::Applied,
            outcome => outcome,
        }
    };
    messages.iter().map(outcome).collect()
}
