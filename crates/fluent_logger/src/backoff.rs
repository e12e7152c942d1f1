//! Pauses between attempts.

use std::time::Duration;

use uuid::Uuid;

const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Pauses that double. Each is shortened by a random part of up to a half.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(MAX_PAUSE.max(self.first));
        let half = pause / 2;
        pause.saturating_sub(half / 256 * u32::from(random_byte()))
    }
}

fn random_byte() -> u8 {
    Uuid::new_v4().as_bytes()[15]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for full in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            let pause = backoff.next_pause();
            assert!(pause > full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_secs(1));
    }
}
