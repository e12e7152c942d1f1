//! What two servers alone spend on an order: a lower bound for what they can spend in the cluster, where batches are smaller and messages are
//! also read from the outbox and deleted.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Server};

use crate::bare_queue;
use crate::bench::{BATCH, Bench};
use crate::figures::figure;
use crate::pgbench::{self, Amount, Work};
use crate::processes;

/// CPU time of one order, in µs.
pub(super) struct Alone {
    /// PostgreSQL, where one client calls `accept_orders` with [`BATCH`] orders.
    pub(super) write_model_us: f64,
    /// RabbitMQ, where 1,000 messages at a time are published, confirmed and consumed.
    pub(super) broker_us: f64,
}

pub(super) async fn measure(bench: &Bench, cluster: &Cluster) -> anyhow::Result<Alone> {
    // Another database than that of the service, so that the relay does not publish what pgbench writes.
    let database = cluster.another_write_model().await?;
    let calls: u32 = if bench.quick { 20 } else { 500 };
    let work = Work::Batch { orders: BATCH };
    let before = cpu(cluster, Server::WriteModel)?;
    pgbench::run(bench.folder(), &database, work, 1, Amount::Transactions(calls)).await?;
    let spent = cpu(cluster, Server::WriteModel)?.saturating_sub(before);
    let write_model_us = each_us(spent, u64::from(calls * BATCH));

    let before = cpu(cluster, Server::Broker)?;
    let messages = bare_queue::run(cluster, bench.duration()).await?.messages;
    let spent = cpu(cluster, Server::Broker)?.saturating_sub(before);
    Ok(Alone {
        write_model_us,
        broker_us: each_us(spent, messages),
    })
}

fn cpu(cluster: &Cluster, server: Server) -> anyhow::Result<Duration> {
    let pid = cluster.server_pid(server).context("a server does not run")?;
    Ok(processes::usage(pid)?.cpu)
}

fn each_us(spent: Duration, orders: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / figure(orders)
}
