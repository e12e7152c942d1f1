//! How every service waits for what it needs: without end, with growing, jittered pauses.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

/// Jitter makes it twice as long at most, so that work goes on within seconds after a long outage.
const MAX_PAUSE: Duration = Duration::from_secs(4);

/// A policy for `backon::Retryable`: pauses without end from `first`, doubling up to 4 s, each with jitter so that services that fail
/// together do not retry together.
pub(crate) fn for_ever(first: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(MAX_PAUSE.max(first))
        .with_jitter()
        .without_max_times()
}

/// The pauses of that policy, for loops of one's own.
pub fn pauses(first: Duration) -> impl Iterator<Item = Duration> {
    for_ever(first).build()
}

/// The same pauses, which begin anew after a success and end when the process stops.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// The first pause is `first`.
    #[must_use]
    pub fn starting_at(first: Duration) -> Self {
        let pauses = for_ever(first).build();
        Self { first, pauses }
    }

    /// To be called after a success: the next pause is the first one.
    pub fn reset(&mut self) {
        self.pauses = for_ever(self.first).build();
    }

    /// Waits for the next pause to pass. Returns `false` when the process was asked to stop meanwhile.
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
        for pause in &pauses {
            assert!((1.0..=8.0).contains(&pause.as_secs_f64()), "{pauses:?}");
        }
        assert!(pauses[50] >= Duration::from_secs(4));
        backoff.reset();
        let next = backoff.pauses.next();
        assert!(next.is_some_and(|pause| pause <= Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn a_pause_ends_at_once_when_the_process_stops() {
        let stopping = CancellationToken::new();
        stopping.cancel();
        let mut backoff = Backoff::starting_at(Duration::from_secs(3600));
        assert!(!backoff.pause(&stopping).await);
    }
}
