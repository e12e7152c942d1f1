//! A client reads the order that it has just written, by its `Order-Position`, from the whole system.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, new_order, wait_until};
use reqwest::header::HeaderValue;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Places an order. Returns its position and its id.
async fn place(cluster: &Cluster) -> anyhow::Result<(HeaderValue, Value)> {
    let answer = cluster.put_order(&new_order("USD", "1.00")).send().await?;
    let answer = answer.error_for_status()?;
    let position = answer.headers().get("order-position").cloned();
    let mut body: Value = answer.json().await?;
    Ok((position.context("no position")?, body["buy_order"]["id"].take()))
}

/// Status, `Retry-After` and body of a page with this position.
async fn page(
    cluster: &Cluster,
    position: &HeaderValue,
) -> anyhow::Result<(u16, Option<HeaderValue>, Value)> {
    let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
    let asked = cluster.http().get(url).header("order-position", position);
    let answer = asked.send().await?;
    let retry_after = answer.headers().get("retry-after").cloned();
    Ok((answer.status().as_u16(), retry_after, answer.json().await?))
}

#[tokio::test]
async fn while_nothing_is_projected_a_position_is_503_within_moments_and_then_the_order_is_there()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let (position, id) = place(&cluster).await?;
    wait_until("the first order is on the page", LIMIT, async || {
        let (status, _, page) = page(&cluster, &position).await?;
        Ok(status == 200 && page["rows"][0]["id"] == id)
    })
    .await?;

    cluster.stop(Service::ReadModelSync).await?;
    let (position, id) = place(&cluster).await?;
    let begun = Instant::now();
    let (status, retry_after, body) = page(&cluster, &position).await?;
    let took = begun.elapsed();
    assert_eq!(
        (status, retry_after),
        (503, Some(HeaderValue::from_static("1"))),
        "{body}"
    );
    assert_eq!(
        body["detail"],
        "the order of Order-Position is not on the pages yet, try again shortly"
    );
    ensure!(took < Duration::from_secs(5), "took {took:?}");

    cluster.start_service(Service::ReadModelSync).await?;
    wait_until("the second order is on the page", LIMIT, async || {
        let (status, _, page) = page(&cluster, &position).await?;
        ensure!(status == 200, "{page}");
        assert_eq!(page["rows"][0]["id"], id, "a page without the order");
        Ok(true)
    })
    .await
}
