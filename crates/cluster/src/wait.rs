//! Waiting for a condition instead of sleeping and hoping.

use std::time::{Duration, Instant};

use anyhow::bail;

const PAUSE: Duration = Duration::from_millis(20);

/// Polls `condition` until it answers `true`. An error counts as "not yet", so that a condition may ask a server that is
/// still away; the last one is part of the message.
///
/// # Errors
/// When `limit` has passed: a sentence with `what`, and the condition's last error.
pub async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let outcome = condition().await;
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if started.elapsed() >= limit {
            match outcome {
                Ok(_) => bail!("not within {limit:?}: {what}"),
                Err(error) => return Err(error.context(format!("not within {limit:?}: {what}"))),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
