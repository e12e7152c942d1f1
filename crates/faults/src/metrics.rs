//! Metrics of the services.

use std::time::Duration;

use anyhow::Context as _;
use cluster::Cluster;

/// The metrics of the process at this URL, in Prometheus' text format.
///
/// # Errors
/// When it does not answer within 3 s.
pub async fn text(cluster: &Cluster, url: &str) -> anyhow::Result<String> {
    let request = cluster.http().get(format!("{url}/metrics"));
    let answer = request.timeout(Duration::from_secs(3)).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

/// The value of one sample, named with its labels as in the text.
///
/// # Errors
/// When the process does not answer, or has no such sample.
pub async fn value(cluster: &Cluster, url: &str, sample: &str) -> anyhow::Result<u64> {
    let text = text(cluster, url).await?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("{url}/metrics has no count {sample}"))
}
