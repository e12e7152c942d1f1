//! The pauses of a supervisor between two attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff};
use tokio_util::sync::CancellationToken;

use crate::retry;

/// Pauses that double from the first one up to four seconds, with jitter, so that a restarted broker is not met by all at once.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Begins with `first`, and never ends.
    #[must_use]
    pub fn starting_at(first: Duration) -> Self {
        Self {
            first,
            pauses: retry::for_ever(first).build(),
        }
    }

    /// To be called once the work has succeeded again: the next pause is the first one.
    pub fn reset(&mut self) {
        self.pauses = retry::for_ever(self.first).build();
    }

    /// Waits; `false` when the process was asked to stop meanwhile.
    pub async fn pause(&mut self, stopping: &CancellationToken) -> bool {
        let pause = self.pauses.next().unwrap_or(self.first);
        stopping
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_never_run_out() {
        let mut backoff = Backoff::starting_at(Duration::from_secs(1));
        let pauses: Vec<Duration> = backoff.pauses.by_ref().take(100).collect();
        assert_eq!(pauses.len(), 100);
        assert!(
            pauses
                .iter()
                .all(|pause| *pause >= Duration::from_secs(1) && *pause <= Duration::from_secs(8)),
            "{pauses:?}"
        );
        assert!(pauses[50] >= Duration::from_secs(4));
        backoff.reset();
        assert!(
            backoff
                .pauses
                .next()
                .is_some_and(|pause| pause <= Duration::from_secs(2))
        );
    }

    #[tokio::test]
    async fn a_pause_ends_at_once_when_the_process_stops() {
        let stopping = CancellationToken::new();
        stopping.cancel();
        assert!(
            !Backoff::starting_at(Duration::from_secs(3600))
                .pause(&stopping)
                .await
        );
    }
}
