//! Orders accepted: as many as come back, beside the same rows written by `pgbench`, one order per transaction.

use cluster::{Cluster, DatabaseAddress};

use crate::bench::Bench;
use crate::pgbench::{self, Work};
use crate::wrk::{Ask, Load};

pub(super) const NAME: &str = "orders";

const CONNECTIONS: [u32; 4] = [1, 16, 64, 256];
/// Those that the targets name, and the clients of `pgbench` that they are held against besides as many as connections.
const TARGET: (u32, u32) = (64, 32);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    // Not the one that the service uses, so that nobody relays what pgbench writes.
    let bare = cluster.another_write_model().await?;
    warm_up(bench, &cluster, &bare).await?;
    let mut failed = 0;
    for connections in CONNECTIONS {
        failed += beside_pgbench(bench, &cluster, &bare, connections).await?;
    }
    bench.figures.add(NAME, "failed", f64::from(failed), "");
    Ok(())
}

/// Pools are filled, the price is known, and the tables of both have what comes with their first orders.
async fn warm_up(bench: &mut Bench, cluster: &Cluster, bare: &DatabaseAddress) -> anyhow::Result<()> {
    let load = load(bench, TARGET.0);
    bench.place_orders(cluster, "orders, warm-up", load).await?;
    pgbench::run(bench.folder(), bare, Work::OneOrder, TARGET.1, bench.duration()).await?;
    Ok(())
}

fn load(bench: &Bench, connections: u32) -> Load {
    Load::unpaced(Ask::NewOrders, connections, bench.duration())
}

/// How many requests failed.
async fn beside_pgbench(
    bench: &mut Bench,
    cluster: &Cluster,
    bare: &DatabaseAddress,
    connections: u32,
) -> anyhow::Result<u32> {
    let name = if connections == 1 {
        "1 connection".to_owned()
    } else {
        format!("{connections} connections")
    };
    let load = load(bench, connections);
    let ours = bench
        .place_orders(cluster, &format!("orders, {name}"), load)
        .await?;
    let theirs = pgbench::run(
        bench.folder(),
        bare,
        Work::OneOrder,
        connections,
        bench.duration(),
    )
    .await?;

    let figures = &mut bench.figures;
    let other = match connections {
        1 => "`pgbench`, 1 client".to_owned(),
        clients => format!("`pgbench`, {clients} clients"),
    };
    let (rate, other_rate) = (ours.per_second(), theirs.per_second);
    figures.add_against(NAME, name.clone(), (rate, "/s"), (&other, other_rate));
    let latencies = [
        ("p50", ours.p50_us, theirs.p50_us),
        ("p99", ours.p99_us, theirs.p99_us),
        ("p99.9", ours.p999_us, theirs.p999_us),
    ];
    figures.add_latencies(NAME, &name, &other, &latencies);
    if connections == TARGET.0 {
        let clients = TARGET.1;
        let theirs = pgbench::run(bench.folder(), bare, Work::OneOrder, clients, bench.duration()).await?;
        bench.figures.add_against(
            NAME,
            format!("{name} beside {clients} clients"),
            (rate, "/s"),
            (format!("`pgbench`, {clients} clients"), theirs.per_second),
        );
    }
    Ok(u32::try_from(ours.errors.total())?)
}
