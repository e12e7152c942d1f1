//! Orders accepted: as many as come back, beside the same look-up and the same function called by `pgbench`, with one order each time, or with
//! many.

mod parts;

use std::time::Duration;

use cluster::{Cluster, DatabaseAddress};

use crate::bench::Bench;
use crate::figures::median;
use crate::groups::BATCH;
use crate::pgbench::{self, Work};
use crate::wrk::{self, Ask, Load};

pub(super) const NAME: &str = "orders";

const CONNECTIONS: &[u32] = &[1, 16, 64, 256];
const CONNECTIONS_QUICK: &[u32] = &[1, 64];
/// Those that the targets name, and the clients of `pgbench` that they are held against besides as many as connections.
const TARGET: (u32, u32) = (64, 32);

/// Of each measurement; what it is held against has its turn after each. The median of the turns counts.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(2);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    // Not the one that the service uses, so that nobody relays what pgbench writes.
    let bare = cluster.another_write_model().await?;
    if !bench.quick {
        warm_up(bench, &cluster, &bare).await?;
    }
    let mut failed = 0;
    let all = if bench.quick {
        CONNECTIONS_QUICK
    } else {
        CONNECTIONS
    };
    for connections in all {
        failed += beside_pgbench(bench, &cluster, &bare, *connections).await?;
    }
    parts::measure(bench, &cluster, &bare).await?;
    bench.figures.add(NAME, "failed", f64::from(failed), "");
    Ok(())
}

/// Pools are filled, the price is known, and the tables of both have what comes with their first orders.
async fn warm_up(bench: &mut Bench, cluster: &Cluster, bare: &DatabaseAddress) -> anyhow::Result<()> {
    let load = Load::unpaced(Ask::NewOrders, TARGET.0, bench.duration());
    bench.place_orders(cluster, "orders, warm-up", load).await?;
    by_pgbench(bench, bare, TARGET.1).await?;
    Ok(())
}

fn turns(bench: &Bench) -> usize {
    if bench.quick { 1 } else { TURNS }
}

fn turn(bench: &Bench) -> Duration {
    bench.duration().min(TURN)
}

async fn place(bench: &mut Bench, cluster: &Cluster, connections: u32) -> anyhow::Result<wrk::Outcome> {
    let load = Load::unpaced(Ask::NewOrders, connections, turn(bench));
    bench
        .place_orders(cluster, &format!("orders, {}", name(connections)), load)
        .await
}

async fn by_pgbench(bench: &Bench, bare: &DatabaseAddress, clients: u32) -> anyhow::Result<pgbench::Outcome> {
    bench.by_pgbench(bare, Work::OneOrder, clients, turn(bench)).await
}

fn name(connections: u32) -> String {
    if connections == 1 {
        "1 connection".to_owned()
    } else {
        format!("{connections} connections")
    }
}

fn pgbench_name(clients: u32) -> String {
    match clients {
        1 => "`pgbench`, 1 client".to_owned(),
        clients => format!("`pgbench`, {clients} clients"),
    }
}

/// How many requests failed.
async fn beside_pgbench(
    bench: &mut Bench,
    cluster: &Cluster,
    bare: &DatabaseAddress,
    connections: u32,
) -> anyhow::Result<u32> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut with_fewer, mut in_batches) = (Vec::new(), Vec::new());
    for _ in 0..turns(bench) {
        ours.push(place(bench, cluster, connections).await?);
        theirs.push(by_pgbench(bench, bare, connections).await?);
        if connections == TARGET.0 {
            with_fewer.push(by_pgbench(bench, bare, TARGET.1).await?.per_second);
            let work = Work::Batch { orders: BATCH };
            let batches = bench.by_pgbench(bare, work, 1, turn(bench)).await?;
            in_batches.push(batches.per_second * f64::from(BATCH));
        }
    }

    let figures = &mut bench.figures;
    let (name, other) = (name(connections), pgbench_name(connections));
    let rate = median(ours.iter().map(wrk::Outcome::per_second))?;
    let other_rate = median(theirs.iter().map(|outcome| outcome.per_second))?;
    figures.add_against(NAME, name.clone(), (rate, "/s"), (&other, other_rate));
    let latency = |of_ours: fn(&wrk::Outcome) -> f64, of_theirs: fn(&pgbench::Outcome) -> f64| {
        anyhow::Ok((
            median(ours.iter().map(of_ours))?,
            median(theirs.iter().map(of_theirs))?,
        ))
    };
    let p50 = latency(|ours| ours.p50_us, |theirs| theirs.p50_us)?;
    let p99 = latency(|ours| ours.p99_us, |theirs| theirs.p99_us)?;
    let p999 = latency(|ours| ours.p999_us, |theirs| theirs.p999_us)?;
    let latencies = [
        ("p50", p50.0, p50.1),
        ("p99", p99.0, p99.1),
        ("p99.9", p999.0, p999.1),
    ];
    figures.add_latencies(NAME, &name, &other, &latencies);
    if !with_fewer.is_empty() {
        let clients = TARGET.1;
        let other = (pgbench_name(clients), median(with_fewer)?);
        figures.add_against(
            NAME,
            format!("{name} beside {clients} clients"),
            (rate, "/s"),
            other,
        );
        let other = (
            format!("`pgbench`, 1 client, `accept_orders` with {BATCH}"),
            median(in_batches)?,
        );
        figures.add_against(NAME, format!("{name} beside batches"), (rate, "/s"), other);
    }
    let failed: u64 = ours.iter().map(|outcome| outcome.errors.total()).sum();
    Ok(u32::try_from(failed)?)
}
