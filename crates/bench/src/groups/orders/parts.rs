//! What an order alone waits for, one after the other, each by itself: the bound of its latency.

use cluster::{Cluster, DatabaseAddress, Service};

use super::{NAME, place, turn, turns};
use crate::bench::Bench;
use crate::constant::Constant;
use crate::figures::median;
use crate::pgbench::{self, Work};
use crate::wrk::{Ask, Load};

/// Looked up, and never found, as a new order's is.
const KEYS: u32 = 10_000;

pub(super) async fn measure(
    bench: &mut Bench,
    cluster: &Cluster,
    bare: &DatabaseAddress,
) -> anyhow::Result<()> {
    let quote = cluster.url(Service::BtcPrice) + "/buy?currency=USD";
    let constant = Constant::start(bench.folder(), an_order(cluster)).await?;
    let (run, ..) = uuid::Uuid::new_v4().as_fields();
    let look_up = Work::LookUp { run, keys: KEYS };
    let alone = Load::unpaced(Ask::Get, 1, turn(bench));
    let (mut orders, mut parts) = (Vec::new(), [const { Vec::new() }; 4]);
    for _ in 0..turns(bench) {
        orders.push(place(bench, cluster, 1).await?.p50_us);
        let by_pgbench = async |work| pgbench::run(bench.folder(), bare, work, 1, turn(bench)).await;
        parts[0].push(by_pgbench(Work::OneOrder).await?.p50_us);
        parts[1].push(by_pgbench(look_up.clone()).await?.p50_us);
        parts[2].push(bench.load("a quote alone", &quote, alone).await?.p50_us);
        parts[3].push(
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
    let names = "the transaction and the look-up by `pgbench`, a quote, a constant answer, 1 client each";
    bench.figures.add_against(
        NAME,
        "1 connection, p50 beside its parts",
        (median(orders)? / 1000.0, "ms"),
        (names, sum_us / 1000.0),
    );
    Ok(())
}

/// What is answered is of the size of an order.
fn an_order(cluster: &Cluster) -> reqwest::RequestBuilder {
    let order = serde_json::json!({
        "currency": "USD",
        "amount": "0.01",
        "idempotence_key": uuid::Uuid::new_v4(),
    });
    let url = cluster.url(Service::CreateBuyOrder) + "/buy_order";
    cluster.http().put(url).json(&order)
}
