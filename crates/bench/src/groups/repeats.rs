//! Repeated requests per second, whose orders exist, compared with the look-up alone.

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::bench::{Bench, CONNECTIONS};
use crate::commits::wait_until_projected;
use crate::pgbench::Work;
use crate::wrk::{Ask, Load, repeated_key};

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let keys = if bench.quick { 500 } else { 10_000 };
    let (run, ..) = uuid::Uuid::new_v4().as_fields();
    place(&cluster, run, keys).await?;
    wait_until_projected(&cluster).await?;
    let orders = count(&cluster).await?;

    let load = Load::unpaced(Ask::Repeats { run, keys }, CONNECTIONS, bench.duration());
    let url = cluster.url(Service::CreateBuyOrder);
    let ours = bench.load("repeats", &url, load).await?;
    ensure!(count(&cluster).await? == orders, "repeats made new orders");
    let database = &cluster.addresses().write_model;
    let work = Work::LookUp { run, keys };
    let theirs = bench
        .by_pgbench(database, work, CONNECTIONS, bench.duration())
        .await?;

    let name = format!("{CONNECTIONS} connections");
    let other = format!("`pgbench`, the look-up alone, {CONNECTIONS} clients");
    let figures = &mut bench.figures;
    let rate = (ours.per_second(), "/s");
    figures.add_against(name.clone(), rate, (&other, theirs.per_second));
    let latencies = [
        ("p50", ours.p50_us, theirs.p50_us),
        ("p99", ours.p99_us, theirs.p99_us),
    ];
    figures.add_latencies(&name, &other, &latencies);
    Ok(())
}

/// Places the orders that are repeated later.
async fn place(cluster: &Cluster, run: u32, keys: u32) -> anyhow::Result<()> {
    stream::iter(0..keys)
        .map(|number| {
            let key = repeated_key(run, number);
            let request = cluster.put_order(&cluster::order_with_key("USD", "0.01", key));
            async move {
                request.send().await?.error_for_status()?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(usize::try_from(CONNECTIONS)?)
        .try_collect::<()>()
        .await
        .context("could not place the orders that are to be repeated")
}

async fn count(cluster: &Cluster) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM buy_order");
    Ok(count.fetch_one(cluster.write_model()).await?)
}
