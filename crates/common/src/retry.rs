//! How every service waits for what it needs: for ever, with growing, jittered pauses.

use std::time::Duration;

use backon::ExponentialBuilder;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Pauses from `first`, doubling up to 10 s, each with jitter so that services that fail together do not retry together.
pub(crate) fn for_ever(first: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(LONGEST_PAUSE.max(first))
        .with_jitter()
        .without_max_times()
}
