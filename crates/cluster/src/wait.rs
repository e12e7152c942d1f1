//! Waits for a condition, instead of a fixed sleep.

use std::time::{Duration, Instant};

use anyhow::bail;

const PAUSE: Duration = Duration::from_millis(20);

/// Polls `condition` until it returns `true`. An error counts as "not yet", so that a condition can query a server that is
/// still away.
///
/// # Errors
/// When `limit` has passed. The message contains `what` and the condition's last error.
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
