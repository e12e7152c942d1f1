//! When to retry the dead letters that the broker does not take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pauses between retries double from the first to the maximum.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How many deliveries are retried after a pause.
const PROBE: usize = 100;

/// How many are retried at once after the broker took a letter.
const BURST: usize = 1000;

/// The tags of held deliveries, oldest first, and the time of the next retry.
#[derive(Debug)]
pub(super) struct HeldDeliveries {
    pub(super) tags: VecDeque<u64>,
    pause: Duration,
    next_at: Instant,
    /// The broker took a letter since the last retry, so it may take more.
    broker_takes_letters: bool,
}

impl HeldDeliveries {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tags: VecDeque::new(),
            pause: FIRST_PAUSE,
            next_at: now,
            broker_takes_letters: false,
        }
    }

    pub(super) fn add(&mut self, tag: u64, now: Instant) {
        self.next_at = self.next_at.max(now + FIRST_PAUSE);
        self.tags.push_back(tag);
    }

    pub(super) fn one_was_taken(&mut self) {
        self.pause = FIRST_PAUSE;
        self.broker_takes_letters = true;
    }

    /// The time until the next retry; nothing if there is nothing to retry.
    pub(super) fn until_next(&self, now: Instant) -> Option<Duration> {
        let pause = if self.broker_takes_letters {
            Duration::ZERO
        } else {
            self.next_at.saturating_duration_since(now)
        };
        (!self.tags.is_empty()).then_some(pause)
    }

    /// Takes the tags that are to be retried now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u64> {
        if self.until_next(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        let max = if self.broker_takes_letters { BURST } else { PROBE };
        self.broker_takes_letters = false;
        self.next_at = now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        self.tags.drain(..max.min(self.tags.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between the retries of letters that are never taken.
    fn pauses(held: &mut HeldDeliveries, mut now: Instant, tries: usize) -> Vec<u64> {
        let mut pauses = Vec::new();
        for _ in 0..tries {
            let pause = held.until_next(now).unwrap_or_default();
            pauses.push(pause.as_secs());
            now += pause;
            for tag in held.take_due(now) {
                held.add(tag, now);
            }
        }
        pauses
    }

    #[test]
    fn what_is_refused_again_and_again_is_tried_after_growing_pauses() {
        let now = Instant::now();
        let mut held = HeldDeliveries::new(now);
        held.add(1, now);
        assert_eq!(pauses(&mut held, now, 9), [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        held.one_was_taken();
        assert_eq!(pauses(&mut held, now, 3), [0, 1, 2], "from the beginning");
    }

    #[test]
    fn a_few_are_tried_first_and_more_once_one_was_taken_and_each_has_its_turn() {
        let now = Instant::now();
        let mut held = HeldDeliveries::new(now);
        for tag in 0..5000 {
            held.add(tag, now);
        }
        assert!(held.take_due(now).is_empty(), "not before its time");
        let later = now + FIRST_PAUSE;
        let first = held.take_due(later);
        assert_eq!(first, (0..100).collect::<Vec<u64>>());
        for tag in first {
            held.add(tag, later);
        }
        held.one_was_taken();
        assert_eq!(held.take_due(later), (100..1100).collect::<Vec<u64>>());
        assert!(held.take_due(later).is_empty(), "until another one is taken");
        assert_eq!(held.tags.len(), 4000);
    }
}
