use std::time::{Duration, Instant};

use super::*;
use crate::books::Void;
use crate::voids::{Answer, Attempt};

const REASON: &str = "fat finger";
const VOIDED_AT: &str = "2026-11-28T15:37:32.531850Z";

/// Order 1, voided for [`REASON`] by a command that began in second 10 and ended in second 20. Its identity is `identity(1)`.
struct Case {
    start: Instant,
    voids: Vec<Void>,
    attempts: Vec<Attempt>,
    entries: Vec<Entry>,
}

impl Case {
    fn new() -> Self {
        let start = Instant::now();
        let mut case = Self {
            start,
            voids: vec![Void {
                id: 1,
                external_id: row(1).external_id,
                reason: REASON.to_owned(),
                voided_at: VOIDED_AT.to_owned(),
            }],
            attempts: Vec::new(),
            entries: Vec::new(),
        };
        case.attempt(REASON, 10..20, Answer::Voided);
        case.entry(0, acknowledged(&row(1)));
        case
    }

    fn second(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn attempt(&mut self, reason: &str, seconds: std::ops::Range<u64>, answer: Answer) {
        self.attempts.push(Attempt {
            id: row(1).external_id,
            reason: reason.to_owned(),
            began: self.second(seconds.start),
            ended: Some(self.second(seconds.end)),
            answer,
        });
    }

    /// A request with `identity(1)` that was sent in this second and answered in the next one.
    fn entry(&mut self, second: u64, outcome: Outcome) {
        self.entries.push(Entry {
            sent_at: self.second(second),
            took: Duration::from_secs(1),
            ..entry(identity(1), outcome)
        });
    }

    fn found(&self) -> Vec<String> {
        let violations = Violations::default();
        let (orders, keys) = ([row(1), row(2)], [key(&identity(1), 1), key(&identity(2), 2)]);
        let book = Book::new(&orders, &keys);
        super::super::voids::check(&book, &self.voids, &self.attempts, &self.entries, &violations);
        violations.sentences()
    }

    fn assert_found(&self, beginning: &str) {
        let found = self.found();
        assert!(
            found.len() == 1 && found[0].starts_with(beginning),
            "{beginning}: {found:?}"
        );
    }
}

fn before(voided_at: &str, reason: &str) -> Answer {
    Answer::Before {
        voided_at: voided_at.to_owned(),
        reason: reason.to_owned(),
    }
}

fn voided(id: i64, reason: &str) -> Outcome {
    Outcome::Voided {
        id: row(id).external_id,
        reason: reason.to_owned(),
    }
}

#[test]
fn voids_that_agree_with_what_was_told_are_right() {
    let mut case = Case::new();
    case.attempt("another reason", 15..21, before(VOIDED_AT, REASON));
    case.attempt("another reason", 21..22, Answer::Unknown);
    // Sent before the void was known, so either answer is right.
    case.entry(15, acknowledged(&row(1)));
    case.entry(15, voided(1, REASON));
    case.entry(20, voided(1, REASON));
    case.entry(20, Outcome::Unknown("no answer".to_owned()));
    assert_eq!(case.found(), [""; 0]);
}

#[test]
fn a_command_without_an_answer_may_have_voided_or_not() {
    let mut case = Case::new();
    case.attempts[0].answer = Answer::Unknown;
    case.attempts[0].ended = None;
    case.entry(20, acknowledged(&row(1)));
    assert_eq!(case.found(), [""; 0]);
    case.attempt("another reason", 30..31, before(VOIDED_AT, REASON));
    case.entry(31, voided(1, REASON));
    assert_eq!(case.found(), [""; 0]);

    case.attempts.truncate(1);
    case.entries.truncate(1);
    case.voids.clear();
    case.entry(20, acknowledged(&row(1)));
    assert_eq!(case.found(), [""; 0]);
}

#[test]
fn an_order_that_nobody_voided_is_found() {
    let mut case = Case::new();
    case.attempts.clear();
    case.assert_found("I16: nobody voided it");
}

#[test]
fn a_lost_void_is_found() {
    for answer in [Answer::Voided, before(VOIDED_AT, REASON)] {
        let mut case = Case::new();
        case.attempts[0].answer = answer;
        case.voids.clear();
        case.assert_found("I16: acknowledged, and not in the write model");
    }
}

#[test]
fn a_doubled_void_is_found() {
    let mut case = Case::new();
    case.attempt(REASON, 20..21, Answer::Voided);
    case.assert_found("I16: voided more than once");

    let mut case = Case::new();
    case.attempt(REASON, 1..2, before(VOIDED_AT, REASON));
    case.assert_found("I16: voided after it was said to be voided");
}

#[test]
fn a_void_with_the_reason_of_another_command_is_found() {
    let mut case = Case::new();
    case.attempt("another reason", 20..21, Answer::Unknown);
    case.voids[0].reason = "another reason".to_owned();
    case.assert_found("I16: the write model has the reason of another command");

    let mut case = Case::new();
    case.attempts[0].answer = Answer::Unknown;
    case.voids[0].reason = "another reason".to_owned();
    case.assert_found("I16: the write model has the reason of another command");
}

#[test]
fn a_repeated_command_that_is_told_another_reason_or_time_is_found() {
    for answer in [
        before(VOIDED_AT, "another reason"),
        before("2026-11-28T15:37:32.531851Z", REASON),
    ] {
        let mut case = Case::new();
        case.attempt("another reason", 20..21, answer);
        case.assert_found("I16: the operator was told of another void");
    }
}

#[test]
fn an_order_that_the_command_denies_is_found() {
    let mut case = Case::new();
    case.attempts[0].answer = Answer::NoSuchOrder;
    case.voids.clear();
    case.assert_found("I16: an order in the book was said not to exist");
    case.attempts[0].id = Uuid::from_u128(99);
    assert_eq!(case.found(), [""; 0]);
}

#[test]
fn a_repeat_that_is_answered_otherwise_after_the_void_is_known_is_found() {
    for outcome in [acknowledged(&row(1)), Outcome::Refused] {
        let mut case = Case::new();
        case.entry(20, outcome.clone());
        case.assert_found("I17: its order had been voided");
        // Known by the answer to a client.
        let mut case = Case::new();
        case.attempts[0].answer = Answer::Unknown;
        case.entry(12, voided(1, REASON));
        case.entry(13, outcome);
        case.assert_found("I17: its order had been voided");
    }
}

#[test]
fn an_answer_about_a_void_that_is_another_or_none_is_found() {
    for (second, outcome) in [
        (20, voided(1, "another reason")),
        (20, voided(2, REASON)),
        // Answered in second 9, before the command began.
        (8, voided(1, REASON)),
    ] {
        let mut case = Case::new();
        case.entries.clear();
        case.entry(second, outcome);
        case.assert_found("I17: answered as voided");
    }
    // Another order that was voided too.
    let mut case = Case::new();
    case.attempt(REASON, 10..20, Answer::Voided);
    case.attempts[1].id = row(2).external_id;
    case.voids.push(Void {
        id: 2,
        external_id: row(2).external_id,
        ..case.voids[0].clone()
    });
    assert_eq!(case.found(), [""; 0]);
    case.entry(15, voided(2, REASON));
    case.assert_found("I17: answered as voided");
}

#[test]
fn a_voided_order_on_a_page_and_one_that_is_missing_there_are_found() {
    let mut orders = [row(1), row(2), row(3)];
    orders[1].voided_at = Some(VOIDED_AT.to_owned());
    let shown = |ids: &[i64]| -> Vec<Order> {
        let outcomes = ids.iter().map(|id| acknowledged(&row(*id)));
        outcomes
            .filter_map(|outcome| match outcome {
                Outcome::Acknowledged(order) => Some(order),
                _ => None,
            })
            .collect()
    };
    assert_eq!(fault_of_pages(&orders, &shown(&[3, 1])), None);
    for wrong in [&[3, 2, 1][..], &[3], &[1, 3], &[3, 2]] {
        assert!(fault_of_pages(&orders, &shown(wrong)).is_some(), "{wrong:?}");
    }
}

#[test]
fn a_void_that_differs_between_the_models_is_found() {
    let Case { voids, .. } = Case::new();
    let mut changed = voids.clone();
    changed[0].reason = "another reason".to_owned();
    for projected in [Vec::new(), changed] {
        let violations = Violations::default();
        compare(&voids, &projected, |void| void.id, &violations);
        assert_eq!(violations.sentences().len(), 1, "{:?}", violations.sentences());
    }
    let violations = Violations::default();
    let mut marked = row(1);
    marked.voided_at = Some(VOIDED_AT.to_owned());
    compare(&[marked], &[row(1)], |row| row.id, &violations);
    assert!(violations.sentences()[0].starts_with("I4: "));
}
