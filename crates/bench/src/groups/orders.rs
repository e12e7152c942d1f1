//! Accepted orders per second at full speed, compared with the same statements called by `pgbench` with one order or with many.

mod parts;
mod turns;

use cluster::{Cluster, DatabaseAddress};

use crate::bench::{BATCH, Bench};
use crate::figures::median;
use crate::pgbench::{self, Work};
use crate::wrk::{self, Ask, Load};
use turns::{by_pgbench, name, place, place_undisturbed, turn, turns};

const CONNECTIONS: &[u32] = &[1, 16, 64, 256];
const CONNECTIONS_QUICK: &[u32] = &[1, 64];
/// The connections of the targets, and the clients of a second `pgbench` run that they are compared with.
const TARGET: (u32, u32) = (64, 32);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    // Another database than that of the service, so that the relay does not publish what pgbench writes.
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
    bench.figures.add("failed", f64::from(failed), "");
    Ok(())
}

/// Fills the pools, fetches the price and writes the first orders of both databases.
async fn warm_up(bench: &mut Bench, cluster: &Cluster, bare: &DatabaseAddress) -> anyhow::Result<()> {
    let load = Load::unpaced(Ask::NewOrders, TARGET.0, bench.duration());
    bench.place_orders(cluster, "orders, warm-up", load).await?;
    by_pgbench(bench, bare, TARGET.1).await?;
    Ok(())
}

fn pgbench_name(clients: u32) -> String {
    match clients {
        1 => "`pgbench`, 1 client".to_owned(),
        clients => format!("`pgbench`, {clients} clients"),
    }
}

/// Returns the number of failed requests.
async fn beside_pgbench(
    bench: &mut Bench,
    cluster: &Cluster,
    bare: &DatabaseAddress,
    connections: u32,
) -> anyhow::Result<u32> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut with_fewer, mut in_batches, mut undisturbed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns(bench) {
        ours.push(place(bench, cluster, connections).await?);
        theirs.push(by_pgbench(bench, bare, connections).await?);
        if connections == TARGET.0 {
            with_fewer.push(by_pgbench(bench, bare, TARGET.1).await?.per_second);
            let work = Work::Batch { orders: BATCH };
            let batches = bench.by_pgbench(bare, work, 1, turn(bench)).await?;
            in_batches.push(batches.per_second * f64::from(BATCH));
            let alone = place_undisturbed(bench, cluster, connections).await?;
            undisturbed.push(alone.per_second());
        }
    }

    let figures = &mut bench.figures;
    let (name, other) = (name(connections), pgbench_name(connections));
    let rate = median(ours.iter().map(wrk::Outcome::per_second))?;
    let other_rate = median(theirs.iter().map(|outcome| outcome.per_second))?;
    figures.add_against(name.clone(), (rate, "/s"), (&other, other_rate));
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
    figures.add_latencies(&name, &other, &latencies);
    if !with_fewer.is_empty() {
        let clients = TARGET.1;
        let other = (pgbench_name(clients), median(with_fewer)?);
        figures.add_against(format!("{name} beside {clients} clients"), (rate, "/s"), other);
        let other = format!("`pgbench`, 1 client, `accept_orders` with {BATCH}");
        let other = (other.as_str(), median(in_batches)?);
        figures.add_against(format!("{name} beside batches"), (rate, "/s"), other);
        let alone = format!("{name} while broker and projection stand still");
        figures.add_against(alone, (median(undisturbed)?, "/s"), other);
    }
    let failed: u64 = ours.iter().map(|outcome| outcome.errors.total()).sum();
    Ok(u32::try_from(failed)?)
}
