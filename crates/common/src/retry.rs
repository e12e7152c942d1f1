//! How every service waits for what it needs: for ever, with growing, jittered pauses.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// With jitter up to twice as long: what comes back after a long outage is at work again within seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Pauses without end from `first`, doubling up to 4 s, each with jitter so that services that fail together do not retry together.
pub fn pauses(first: Duration) -> impl Iterator<Item = Duration> {
    for_ever(first).build()
}

/// The same, for `backon::Retryable`.
pub(crate) fn for_ever(first: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(LONGEST_PAUSE.max(first))
        .with_jitter()
        .without_max_times()
}
