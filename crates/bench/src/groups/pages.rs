//! Pages per second, compared with the same SELECT by `pgbench`, with pages that are read and not decoded, and with a handler that always
//! answers the same page.

mod undecoded;

use anyhow::ensure;
use cluster::{Cluster, Service};

use crate::bench::{Bench, CONNECTIONS};
use crate::constant::Constant;
use crate::pgbench::Work;
use crate::wrk::{Ask, Load};

const PAGE_SIZES: [u32; 2] = [10, 100];

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let orders = if bench.quick { 5_000 } else { 20_000 };
    fill(bench, &cluster, orders).await?;
    for page_size in PAGE_SIZES {
        beside_others(bench, &cluster, page_size).await?;
    }
    Ok(())
}

/// Places orders until the read model has this many.
async fn fill(bench: &mut Bench, cluster: &Cluster, orders: i64) -> anyhow::Result<()> {
    let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, bench.duration());
    let count = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM buy_order_read_model");
    while count().fetch_one(cluster.read_model()).await? < orders && bench.failures().is_empty() {
        bench.place_orders(cluster, "orders for pages", load).await?;
    }
    // As autovacuum would do after a minute.
    sqlx::query("VACUUM (ANALYZE) buy_order_read_model")
        .execute(cluster.read_model())
        .await?;
    Ok(())
}

async fn beside_others(bench: &mut Bench, cluster: &Cluster, page_size: u32) -> anyhow::Result<()> {
    let url = format!(
        "{}/buy_orders?page_size={page_size}",
        cluster.url(Service::FetchBuyOrders)
    );
    let load = Load::unpaced(Ask::Get, CONNECTIONS, bench.duration());
    let name = format!("{page_size} rows");
    let ours = bench.load(&format!("pages, {name}"), &url, load).await?;
    let (database, work) = (&cluster.addresses().read_model, Work::Page { page_size });
    let theirs = bench
        .by_pgbench(database, work, CONNECTIONS, bench.duration())
        .await?;
    let undecoded = undecoded::per_second(cluster, page_size, bench.duration()).await?;
    let constant = Constant::start(bench.folder(), cluster.http().get(&url)).await?;
    let unread = bench
        .load(&format!("a constant page, {name}"), constant.url(), load)
        .await?;
    drop(constant);
    let size_ratio = unread.bytes_each() / ours.bytes_each();
    ensure!(
        (0.9..1.1).contains(&size_ratio),
        "the constant answer is not like a page: it has {size_ratio} times its size"
    );

    let figures = &mut bench.figures;
    let pgbench = format!("`pgbench`, the same SELECT, {CONNECTIONS} clients");
    let handler = "a handler that answers a constant";
    let rate = (ours.per_second(), "/s");
    figures.add_against(name.clone(), rate, (&pgbench, theirs.per_second));
    figures.add(format!("{name}, size of an answer"), ours.bytes_each(), "bytes");
    let beside = format!("{name} beside undecoded rows");
    let reader = "the same pages, read by sqlx and dropped".to_owned();
    figures.add_against(beside, rate, (reader, undecoded));
    let beside = format!("{name} beside a constant");
    figures.add_against(beside, rate, (handler, unread.per_second()));
    let latencies = [
        ("p50", ours.p50_us, theirs.p50_us),
        ("p99", ours.p99_us, theirs.p99_us),
    ];
    figures.add_latencies(&name, &pgbench, &latencies);
    Ok(())
}
