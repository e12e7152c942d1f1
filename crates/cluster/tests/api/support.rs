//! Helpers for metrics, and what the forward server of `fluent_logger`'s tests needs from the crate that includes it.

use std::time::Duration;

pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    cluster::wait_until(what, Duration::from_secs(60), async || Ok(condition())).await
}

/// The text of a service's `/metrics`.
pub(crate) async fn metrics(cluster: &cluster::Cluster, service: cluster::Service) -> anyhow::Result<String> {
    let url = cluster.url(service) + "/metrics";
    let response = cluster.http().get(url).send().await?.error_for_status()?;
    Ok(response.text().await?)
}

/// The value of a series, which is named with its labels as in the text. `None` if it is not shown.
pub(crate) async fn value(
    cluster: &cluster::Cluster,
    service: cluster::Service,
    series: &str,
) -> anyhow::Result<Option<f64>> {
    let shown = metrics(cluster, service).await?;
    let line = shown
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.map(str::parse).transpose()?)
}

/// Waits until a series has this value, or for `None` until it is not shown.
pub(crate) async fn shows(
    cluster: &cluster::Cluster,
    service: cluster::Service,
    series: &str,
    expected: Option<f64>,
) -> anyhow::Result<()> {
    cluster::wait_until(series, Duration::from_secs(60), async || {
        let found = value(cluster, service, series).await?;
        anyhow::ensure!(found == expected, "{found:?} is shown, not {expected:?}");
        Ok(true)
    })
    .await
}
