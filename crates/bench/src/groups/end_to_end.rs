//! Orders from end to end: accepted, relayed, projected. Orders per second, lag of the projection, and the time to drain a burst; compared with
//! `pgbench` with one order per transaction, and with the broker alone.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster::{Cluster, Service};

use crate::bare_queue;
use crate::bench::{Bench, CONNECTIONS};
use crate::commits::{Commits, newest, now_us, wait_until_projected};
use crate::figures::{figure, percentile};
use crate::pgbench::Work;
use crate::wrk::{Ask, Load};

const BURST_CONNECTIONS: u32 = 256;

/// An order that is not projected within this time, although the outbox is empty and later orders are projected, is lost.
const PROJECTED_WITHIN: Duration = Duration::from_secs(30);

/// Results of the bare servers, per second.
struct Bare {
    pgbench: f64,
    queue: f64,
}

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.fresh_cluster().await?;
    if !bench.quick {
        place_orders(bench, &cluster, "warm-up", load(bench.duration(), None)).await?;
    }
    let bare = bare(bench, &cluster).await?;

    let long = Duration::from_secs(if bench.quick { 1 } else { 60 });
    let short = Duration::from_secs(if bench.quick { 1 } else { 20 });
    let projected = steady(bench, &cluster, "sustained", load(long, None)).await?;
    let other = format!("`pgbench`, {CONNECTIONS} clients");
    let figures = &mut bench.figures;
    figures.add_against("sustained", (projected, "/s"), (other, bare.pgbench));
    let (beside, other) = ("sustained beside the queue", "publish, confirm, consume");
    figures.add_against(beside, (projected, "/s"), (other, bare.queue));
    let projected = steady(bench, &cluster, "500/s", load(short, Some(500))).await?;
    bench.figures.add("500/s", projected, "/s");
    burst(bench, &cluster).await
}

fn load(duration: Duration, rate: Option<u32>) -> Load {
    Load {
        ask: Ask::NewOrders,
        connections: CONNECTIONS,
        duration,
        rate,
    }
}

async fn bare(bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<Bare> {
    let database = cluster.another_write_model().await?;
    let duration = bench.duration();
    let queue = bare_queue::run(cluster, duration).await?.per_second();
    let bare = &*bench;
    let one_order = async || {
        bare.by_pgbench(&database, Work::OneOrder, CONNECTIONS, duration)
            .await
    };
    // The first run warms up the caches.
    one_order().await?;
    let pgbench = one_order().await?;
    let figures = &mut bench.figures;
    figures.add("the queue alone: publish, confirm, consume", queue, "/s");
    Ok(Bare {
        pgbench: pgbench.per_second,
        queue,
    })
}

/// Orders projected per second while orders are placed.
async fn steady(bench: &mut Bench, cluster: &Cluster, name: &str, load: Load) -> anyhow::Result<f64> {
    let ((commits, _), lone_messages) = tokio::try_join!(
        place_orders(bench, cluster, name, load),
        bare_queue::lone_messages(cluster, load.duration),
    )?;
    let accepted = commits.accepted_per_second(load.duration)?;
    let lags = commits.lags_us()?;
    let figures = &mut bench.figures;
    figures.add(format!("{name}, accepted"), accepted, "/s");
    for (what, thousandths) in [("p50", 500), ("p99", 990)] {
        let lag_ms = percentile(&lags, thousandths)? / 1000.0;
        let alone_ms = percentile(&lone_messages, thousandths)? / 1000.0;
        let other = "a single message through a queue of its own, meanwhile";
        figures.add_against(format!("{name}, lag {what}"), (lag_ms, "ms"), (other, alone_ms));
    }
    commits.projected_per_second(load.duration)
}

async fn burst(bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<()> {
    let duration = Duration::from_secs(if bench.quick { 1 } else { 10 });
    let load = Load {
        connections: BURST_CONNECTIONS,
        ..load(duration, None)
    };
    let (commits, drained_us) = place_orders(bench, cluster, "burst", load).await?;
    let drained_us = u64::try_from(drained_us - commits.last_us()?).context("the clock was set")?;
    let accepted = commits.accepted_per_second(duration)?;
    let behind = u64::try_from(commits.behind_at_the_end()?)?;
    let figures = &mut bench.figures;
    figures.add("burst, accepted", accepted, "/s");
    figures.add("burst, not projected at its end", figure(behind), "");
    figures.add("drained after a burst", figure(drained_us) / 1e6, "s");
    Ok(())
}

/// Places orders and waits until they are projected. Returns their commits, and the time when all were projected, in µs.
async fn place_orders(
    bench: &mut Bench,
    cluster: &Cluster,
    name: &str,
    load: Load,
) -> anyhow::Result<(Commits, i64)> {
    let from = newest(cluster).await?;
    let url = cluster.url(Service::CreateBuyOrder);
    let outcome = bench.load(&format!("end_to_end, {name}"), &url, load).await?;
    let began = Instant::now();
    loop {
        wait_until_projected(cluster).await?;
        let quiet_us = now_us(cluster).await?;
        let commits = Commits::since(cluster, from).await?;
        let missing = commits.not_projected();
        // A request that was in flight when the load ended may still create an order.
        if missing > 0 && began.elapsed() < PROJECTED_WITHIN {
            continue;
        }
        if missing > 0 {
            bench.fail(format!(
                "end_to_end, {name}: {missing} orders are not in the read model"
            ));
        }
        let (orders, answered) = (commits.orders(), outcome.requests);
        if u64::try_from(orders)? < answered {
            bench.fail(format!(
                "end_to_end, {name}: {answered} orders were answered, and there are {orders}"
            ));
        }
        return Ok((commits, quiet_us));
    }
}
