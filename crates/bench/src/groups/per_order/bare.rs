//! What two servers alone spend on an order: a lower bound for what they can spend in the cluster, where batches are smaller and messages are
//! also read from the outbox and deleted.

use std::time::Duration;

use cluster::{Cluster, Server};

use crate::bare_queue;
use crate::bench::{BATCH, Bench};
use crate::figures::figure;
use crate::pgbench::{self, Amount, Work};
use crate::spent;

pub(super) async fn measure(bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<()> {
    // Another database than that of the service, so that the relay does not publish what pgbench writes.
    let database = cluster.another_write_model().await?;
    let calls: u32 = if bench.quick { 20 } else { 500 };
    let work = Work::Batch { orders: BATCH };
    let before = spent::server_cpu(cluster, Server::WriteModel)?;
    pgbench::run(bench.folder(), &database, work, 1, Amount::Transactions(calls)).await?;
    let spent = spent::server_cpu(cluster, Server::WriteModel)?.saturating_sub(before);
    let name = format!("CPU, PostgreSQL alone: `pgbench`, `accept_orders` with {BATCH}");
    let orders = u64::from(calls * BATCH);
    bench.figures.add(name, each_us(spent, orders), "µs");

    let before = spent::server_cpu(cluster, Server::Broker)?;
    let messages = bare_queue::run(cluster, bench.duration()).await?.messages;
    let spent = spent::server_cpu(cluster, Server::Broker)?.saturating_sub(before);
    let name = "CPU, the queue alone: publish, confirm, consume";
    bench.figures.add(name, each_us(spent, messages), "µs");
    Ok(())
}

fn each_us(spent: Duration, orders: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / figure(orders)
}
