//! The parts of a single order's latency, each measured alone: their sum is its lower bound.

use cluster::{Cluster, DatabaseAddress};

use super::turns::{by_pgbench, place, place_undisturbed, turn, turns};
use crate::bench::Bench;
use crate::constant::Constant;
use crate::figures::median;
use crate::wrk::{Ask, Load};

pub(super) async fn measure(
    bench: &mut Bench,
    cluster: &Cluster,
    bare: &DatabaseAddress,
) -> anyhow::Result<()> {
    let constant = Constant::start(bench.folder(), an_order(cluster)).await?;
    let alone = Load::unpaced(Ask::Get, 1, turn(bench));
    let (mut orders, mut undisturbed, mut parts) = (Vec::new(), Vec::new(), [const { Vec::new() }; 2]);
    for _ in 0..turns(bench) {
        orders.push(place(bench, cluster, 1).await?.p50_us);
        undisturbed.push(place_undisturbed(bench, cluster, 1).await?.p50_us);
        parts[0].push(by_pgbench(bench, bare, 1).await?.p50_us);
        parts[1].push(
            bench
                .load("a constant alone", constant.url(), alone)
                .await?
                .p50_us,
        );
    }
    let mut sum_us = 0.0;
    for part in parts {
        sum_us += median(part)?;
    }
    let names = "the statement by `pgbench`, a constant answer, 1 client each";
    for (name, latencies) in [
        ("1 connection, p50 beside its parts", orders),
        (
            "1 connection while broker and projection stand still, p50 beside its parts",
            undisturbed,
        ),
    ] {
        let p50 = (median(latencies)? / 1000.0, "ms");
        bench.figures.add_against(name, p50, (names, sum_us / 1000.0));
    }
    Ok(())
}

/// An order, so that the constant answer has the size of an order.
fn an_order(cluster: &Cluster) -> reqwest::RequestBuilder {
    cluster.put_order(&cluster::new_order("USD", "0.01"))
}
