//! How the cost of an order grows with the orders that are stored: beside a book that was empty, in turns.

use std::time::Duration;

use cluster::Cluster;

use crate::bench::Bench;
use crate::groups::CONNECTIONS;
use crate::history;
use crate::wrk::{Ask, Load};

pub(super) const NAME: &str = "growth";

/// How many are stored, in words and in digits.
const STORED: [(&str, i64); 2] = [("1 M", 1_000_000), ("10 M", 10_000_000)];
const STORED_QUICK: [(&str, i64); 1] = [("100 k", 100_000)];
const ROUNDS: u8 = 3;
const ROUND: Duration = Duration::from_secs(3);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    // A fresh one, that is empty but for what is measured here.
    bench.end_cluster();
    let empty = bench.cluster().await?;
    let large = bench.large_cluster().await?;
    // What is measured first would pay for the first touch of everything.
    turn(bench, &empty, "none stored, warm-up").await?;
    history::settle(&empty).await?;
    let stored = if bench.quick {
        &STORED_QUICK[..]
    } else {
        &STORED[..]
    };
    for (name, orders) in stored {
        history::fill(&large, *orders).await?;
        let name = format!("{name} orders stored");
        in_turns(bench, &empty, &large, &name).await?;
        let megabytes = megabytes(&large).await?;
        bench
            .figures
            .add(NAME, format!("{name}, both databases"), megabytes, "MB");
    }
    Ok(())
}

async fn in_turns(bench: &mut Bench, empty: &Cluster, large: &Cluster, name: &str) -> anyhow::Result<()> {
    turn(bench, large, &format!("{name}, warm-up")).await?;
    let (rounds, mut with_none, mut with_many) = (if bench.quick { 1 } else { ROUNDS }, 0.0, 0.0);
    for round in 0..rounds {
        // Each is first in turn, so that a trend of the machine favours neither.
        if round % 2 == 0 {
            with_none += turn(bench, empty, "none stored").await?;
            with_many += turn(bench, large, name).await?;
        } else {
            with_many += turn(bench, large, name).await?;
            with_none += turn(bench, empty, "none stored").await?;
        }
    }
    let rounds = f64::from(rounds);
    let (rate, other_rate) = ((with_many / rounds, "/s"), with_none / rounds);
    bench
        .figures
        .add_against(NAME, name, rate, ("begun with none, in turns", other_rate));
    Ok(())
}

/// Orders a second; on return all are projected, so that the other cluster has the machine for itself.
async fn turn(bench: &mut Bench, cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, bench.duration().min(ROUND));
    let outcome = bench
        .place_orders(cluster, &format!("growth, {name}"), load)
        .await?;
    Ok(outcome.per_second())
}

async fn megabytes(cluster: &Cluster) -> anyhow::Result<f64> {
    let bytes = history::size(cluster.write_model()).await? + history::size(cluster.read_model()).await?;
    Ok(f64::from(u32::try_from(bytes / 1_000_000)?))
}
