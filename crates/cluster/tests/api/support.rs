//! What the forward server of `fluent_logger`'s tests needs of the crate that includes it.

use std::time::Duration;

pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    cluster::wait_until(what, Duration::from_secs(60), async || Ok(condition())).await
}
