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

/// The value of a series; nothing if it is not shown.
async fn shown(cluster: &Cluster, series: &str) -> anyhow::Result<Option<u32>> {
    let url = cluster.url(Service::ReadModelSync) + "/metrics";
    let shown = cluster.http().get(url).send().await?.text().await?;
    let value = shown.lines().find_map(|line| line.strip_prefix(series));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}

#[tokio::test]
async fn the_sizes_of_the_queues_are_shown_while_they_are_known() -> anyhow::Result<()> {
    const LETTERS: &str = r#"queue_messages{queue="buy_order.dead_letter"}"#;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let becomes = async |wanted| {
        let what = format!("the letters are {wanted:?}");
        wait_until(&what, LIMIT, async || {
            Ok(shown(&cluster, LETTERS).await? == wanted)
        })
        .await
    };
    becomes(Some(0)).await?;
    assert_eq!(
        shown(&cluster, r#"queue_messages{queue="buy_order"}"#).await?,
        Some(0)
    );
    broker.publish_raw(b"nonsense", "nonsense").await?;
    becomes(Some(1)).await?;
    // Nobody knows until it is declared again. The projector stays connected.
    cluster.stop(Service::Migration).await?;
    cluster.delete_queue("buy_order.dead_letter").await?;
    becomes(None).await?;
    cluster.start_service(Service::Migration).await?;
    becomes(Some(0)).await?;
    let connected = shown(&cluster, r#"broker_connected{connection="read_model_sync"}"#);
    assert_eq!(connected.await?, Some(1));
    Ok(())
}
