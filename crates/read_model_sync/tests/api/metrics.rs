use anyhow::Context as _;
use cluster::{Cluster, Service, wait_until};

use super::broker::Broker;
use super::{LIMIT, event, projection};

/// Waits until a series has at least this value: the test's own publisher may have to publish twice.
async fn reaches(cluster: &Cluster, series: &str, least: u32) -> anyhow::Result<()> {
    let url = cluster.url(Service::ReadModelSync) + "/metrics";
    wait_until(series, LIMIT, async || {
        let shown = cluster.http().get(&url).send().await?.text().await?;
        let value = shown.lines().find_map(|line| line.strip_prefix(series));
        let value: u32 = value.context("it is not shown")?.trim().parse()?;
        anyhow::ensure!(value >= least, "{value}");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn deliveries_are_counted_by_what_became_of_them() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    for outcome in ["applied", "repeated", "dead_lettered", "postponed"] {
        reaches(
            &cluster,
            &format!("projection_deliveries_total{{outcome=\"{outcome}\"}}"),
            0,
        )
        .await?;
    }
    broker.publish(&[event(1), event(2)]).await?;
    reaches(&cluster, r#"projection_deliveries_total{outcome="applied"}"#, 2).await?;
    broker.publish(&[event(1)]).await?;
    reaches(&cluster, r#"projection_deliveries_total{outcome="repeated"}"#, 1).await?;
    broker.publish_raw(b"nonsense", "nonsense").await?;
    reaches(
        &cluster,
        r#"projection_deliveries_total{outcome="dead_lettered"}"#,
        1,
    )
    .await?;
    reaches(&cluster, r#"broker_publishes_total{outcome="confirmed"}"#, 1).await?;
    reaches(&cluster, "projection_lag_seconds_count", 2).await
}
