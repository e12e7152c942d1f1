//! Checks the voids: I16 compares them with what the operator was told, I17 compares the answers of clients with them.

use std::collections::HashMap;
use std::time::Instant;

use uuid::Uuid;

use super::Book;
use crate::books::Void;
use crate::ledger::{Entry, Outcome};
use crate::violations::{Invariant, Violations};
use crate::voids::{Answer, Attempt, by_order};

/// Checks I16 and I17.
pub(super) fn check(
    book: &Book<'_>,
    voids: &[Void],
    attempts: &[Attempt],
    entries: &[Entry],
    violations: &Violations,
) {
    let attempts = by_order(attempts);
    let voids: HashMap<Uuid, &Void> = voids.iter().map(|void| (void.external_id, void)).collect();
    for (id, void) in &voids {
        if !attempts.contains_key(id) {
            violations.add(Invariant::I16, format!("nobody voided it: {void:?}"));
        }
    }
    for (id, attempts) in &attempts {
        if let Some(what) = fault_of_order(book, *id, voids.get(id).copied(), attempts) {
            violations.add(Invariant::I16, format!("{what}: {attempts:?}"));
        }
    }
    for entry in entries {
        if let Outcome::Voided { id, reason } = &entry.outcome {
            let is_its_order = book.external_ids_of(&entry.identity).eq([*id]);
            let is_reason = voids.get(id).is_some_and(|void| void.reason == *reason);
            let had_begun = attempts
                .get(id)
                .is_some_and(|attempts| attempts.iter().any(|one| one.began <= entry.ended_at()));
            if !(is_its_order && is_reason && had_begun) {
                violations.add(
                    Invariant::I17,
                    format!("answered as voided, and the void is another or none: {entry:?}"),
                );
            }
        }
    }
    check_after_void(book, &known_since(&attempts, entries), entries, violations);
}

/// What contradicts what the operator was told of an order.
fn fault_of_order(
    book: &Book<'_>,
    id: Uuid,
    void: Option<&Void>,
    attempts: &[&Attempt],
) -> Option<&'static str> {
    let by: Vec<&Attempt> = attempts
        .iter()
        .filter(|one| one.answer == Answer::Voided)
        .copied()
        .collect();
    if by.len() > 1 {
        return Some("voided more than once");
    }
    let is_in_book = book.orders.values().any(|row| row.external_id == id);
    if is_in_book && attempts.iter().any(|one| one.answer == Answer::NoSuchOrder) {
        return Some("an order in the book was said not to exist");
    }
    let Some(void) = void else {
        let acknowledged = attempts.iter().any(|one| one.answer.acknowledges());
        return acknowledged.then_some("acknowledged, and not in the write model");
    };
    let is_first = |reason: &str| match by.first() {
        Some(first) => first.reason == reason,
        None => attempts
            .iter()
            .any(|one| one.answer == Answer::Unknown && one.reason == reason),
    };
    if !is_first(&void.reason) {
        return Some("the write model has the reason of another command");
    }
    for one in attempts {
        if let Answer::Before { voided_at, reason } = &one.answer {
            if (voided_at, reason) != (&void.voided_at, &void.reason) {
                return Some("the operator was told of another void");
            }
            if by
                .iter()
                .any(|first| one.ended.is_some_and(|ended| ended <= first.began))
            {
                return Some("voided after it was said to be voided");
            }
        }
    }
    None
}

/// Since when it is known outside that an order is voided: a command or an answer to a client said so.
fn known_since(attempts: &HashMap<Uuid, Vec<&Attempt>>, entries: &[Entry]) -> HashMap<Uuid, Instant> {
    let commands = attempts.values().flatten();
    let by_command = commands
        .filter(|one| one.answer.acknowledges())
        .filter_map(|one| Some((one.id, one.ended?)));
    let by_answer = entries.iter().filter_map(|entry| match entry.outcome {
        Outcome::Voided { id, .. } => Some((id, entry.ended_at())),
        _ => None,
    });
    let mut known = HashMap::new();
    for (id, at) in by_command.chain(by_answer) {
        let since = known.entry(id).or_insert(at);
        *since = at.min(*since);
    }
    known
}

/// A request that is sent when the void of its order is known is never answered with the order, nor with the cap.
fn check_after_void(
    book: &Book<'_>,
    known_since: &HashMap<Uuid, Instant>,
    entries: &[Entry],
    violations: &Violations,
) {
    for entry in entries {
        let told = matches!(entry.outcome, Outcome::Acknowledged(_) | Outcome::Refused);
        let since = book
            .external_ids_of(&entry.identity)
            .find_map(|id| known_since.get(&id));
        if told && since.is_some_and(|since| *since <= entry.sent_at) {
            violations.add(
                Invariant::I17,
                format!("its order had been voided, and it was answered otherwise: {entry:?}"),
            );
        }
    }
}
