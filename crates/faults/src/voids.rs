//! What the operator did: the commands that void orders, and what they said. Beside [`crate::ledger`], the only record outside the system.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::bail;
use cluster::Ended;
use uuid::Uuid;

use crate::ledger::locked;

/// What a command said of its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is voided, by this command.
    Voided,
    /// It was voided before.
    Before {
        /// UTC, with microseconds.
        voided_at: String,
        /// The reason of the command that voided it.
        reason: String,
    },
    /// There is no such order.
    NoSuchOrder,
    /// The command was killed or lost its connection, or has not ended: the order may be voided or not.
    Unknown,
}

impl Answer {
    /// The answer of a command that has ended.
    ///
    /// # Errors
    /// When it says that it succeeded, but not with what.
    pub fn of(ended: &Ended, id: Uuid, reason: &str) -> anyhow::Result<Self> {
        if ended.code != Some(0) {
            let unknown = ended.stderr.contains(&format!("no order has the id {id}"));
            return Ok(if unknown { Self::NoSuchOrder } else { Self::Unknown });
        }
        let line = ended
            .stdout
            .strip_prefix(&format!("order {id} "))
            .unwrap_or_default();
        let line = line.trim_end();
        let said = line.split_once(" is voided: ");
        if said.is_some_and(|(_, said)| said == reason) {
            return Ok(Self::Voided);
        }
        let before = line.split_once(" was voided before, at ");
        let Some((voided_at, reason)) = before.and_then(|(_, rest)| rest.split_once(": ")) else {
            bail!("to void {id} for {reason:?} was answered {:?}", ended.stdout);
        };
        Ok(Self::Before {
            voided_at: voided_at.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// Whether the operator knows from it that the order is voided.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        matches!(self, Self::Voided | Self::Before { .. })
    }
}

/// One command.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The external id of the order.
    pub id: Uuid,
    /// The reason that it gave.
    pub reason: String,
    /// When it was started.
    pub began: Instant,
    /// When it had ended. `None` while it runs.
    pub ended: Option<Instant>,
    /// What it said.
    pub answer: Answer,
}

/// All commands of a run.
#[derive(Debug, Default)]
pub struct Voids(Mutex<Vec<Attempt>>);

impl Voids {
    /// To be called before a command is started. Returns its number.
    pub fn begin(&self, id: Uuid, reason: &str) -> usize {
        let mut attempts = locked(&self.0);
        attempts.push(Attempt {
            id,
            reason: reason.to_owned(),
            began: Instant::now(),
            ended: None,
            answer: Answer::Unknown,
        });
        attempts.len() - 1
    }

    /// Records the end of a command.
    pub fn end(&self, number: usize, answer: Answer) {
        if let Some(attempt) = locked(&self.0).get_mut(number) {
            attempt.ended = Some(Instant::now());
            attempt.answer = answer;
        }
    }

    /// Whether a command to void this order was started.
    #[must_use]
    pub fn may_be_voided(&self, id: Uuid) -> bool {
        locked(&self.0).iter().any(|attempt| attempt.id == id)
    }

    /// All commands so far.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        locked(&self.0).clone()
    }
}

/// The commands, by order.
#[must_use]
pub fn by_order(attempts: &[Attempt]) -> HashMap<Uuid, Vec<&Attempt>> {
    let mut orders: HashMap<Uuid, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        orders.entry(attempt.id).or_default().push(attempt);
    }
    orders
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn answer(code: Option<i32>, stdout: &str, stderr: &str) -> anyhow::Result<Answer> {
        let ended = Ended {
            code,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        Answer::of(&ended, ID, "fat: finger")
    }

    #[test]
    fn the_answers_of_the_command_are_told_apart() {
        let voided = format!("order {ID} (id 7) is voided: fat: finger\n");
        assert_eq!(answer(Some(0), &voided, "").unwrap(), Answer::Voided);
        let before =
            format!("order {ID} (id 7) was voided before, at 2026-11-28T15:37:32.531850Z: a: test\n");
        let expected = Answer::Before {
            voided_at: "2026-11-28T15:37:32.531850Z".to_owned(),
            reason: "a: test".to_owned(),
        };
        assert_eq!(answer(Some(0), &before, "").unwrap(), expected);
        let unknown = format!("error: no order has the id {ID}");
        assert_eq!(answer(Some(1), "", &unknown).unwrap(), Answer::NoSuchOrder);
        assert_eq!(
            answer(Some(1), "", "the write model failed").unwrap(),
            Answer::Unknown
        );
        assert_eq!(answer(None, &voided, "").unwrap(), Answer::Unknown);
    }

    #[test]
    fn success_with_another_order_or_reason_or_nothing_is_an_error() {
        let other_order = format!("order {} (id 7) is voided: fat: finger\n", Uuid::nil());
        let other_reason = format!("order {ID} (id 7) is voided: fat\n");
        for stdout in ["", &other_order, &other_reason] {
            assert!(answer(Some(0), stdout, "").is_err(), "{stdout}");
        }
    }
}
