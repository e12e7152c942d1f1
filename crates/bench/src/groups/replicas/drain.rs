//! How fast replicas project a backlog.

use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Service, wait_until};
use common::broker::topology::BUY_ORDER_QUEUE;

use super::scale::Scale;
use super::turns::{add_figures, turns};
use crate::bench::Bench;
use crate::history;

const BACKLOG: i64 = 50_000;
const BACKLOG_QUICK: i64 = 3_000;
const LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let backlog = if bench.quick { BACKLOG_QUICK } else { BACKLOG };
    let service = Service::ReadModelSync;
    history::fill(&cluster, backlog).await?;
    let mut scale = Scale::of(&cluster, service);
    let mut rates = Vec::new();
    for replicas in turns(bench) {
        scale.stop().await?;
        pile_up(&cluster, backlog).await?;
        let (rate, ()) = tokio::try_join!(projected(&cluster, backlog), scale.start(*replicas))?;
        rates.push((*replicas, rate));
    }
    scale.to(1).await?;
    add_figures(bench, service, &rates);
    Ok(())
}

/// Empties the read model and republishes the first orders. On return exactly these are in the queue.
async fn pile_up(cluster: &Cluster, orders: i64) -> anyhow::Result<()> {
    sqlx::query("TRUNCATE buy_order_read_model")
        .execute(cluster.read_model())
        .await?;
    let last: i64 = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM buy_order ORDER BY id LIMIT $1) AS first_orders",
    )
    .bind(orders)
    .fetch_one(cluster.write_model())
    .await?;
    let arguments = ["republish", "--to-id", &last.to_string(), "--rate", "100000"];
    let ended = cluster.admin(Service::CreateBuyOrder, &arguments, "").await?;
    ensure!(ended.code == Some(0), "republish failed:\n{}", ended.stderr);
    let expected = u64::try_from(orders)?;
    wait_until("the backlog is in the queue", LIMIT, async || {
        Ok(cluster.queue_messages(BUY_ORDER_QUEUE).await? == expected)
    })
    .await
}

/// Orders per second from the first commit of the projection to the last, so without the start of the processes.
async fn projected(cluster: &Cluster, orders: i64) -> anyhow::Result<f64> {
    wait_until("the backlog is projected", LIMIT, async || {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
            .fetch_one(cluster.read_model())
            .await?;
        Ok(rows >= orders)
    })
    .await?;
    // The orders of the first commit came before the counted time.
    let (counted, took_s): (i64, f64) = sqlx::query_as(
        "SELECT sum(orders) FILTER (WHERE at > first)::bigint, extract(epoch FROM max(at) - min(at))::float8
           FROM (SELECT pg_xact_commit_timestamp(xmin) AS at, count(*) AS orders, min(min(pg_xact_commit_timestamp(xmin))) OVER () AS first
                   FROM buy_order_read_model GROUP BY pg_xact_commit_timestamp(xmin)) AS commits",
    )
    .fetch_one(cluster.read_model())
    .await?;
    Ok(f64::from(u32::try_from(counted)?) / took_s)
}
