//! Dependencies that hang: they accept connections and never answer. Requests are refused in time, and everything recovers by itself.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Server, Service, wait_until};
use futures_util::future::try_join_all;

use super::broker::close_connections;
use super::outbox::everything_is_projected;
use super::{Answer, buy, count, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(120);

/// The limit of 15 s, and a margin for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(18);

/// Places more concurrent orders than there are connections to the write model. Each must be refused in time, with `Retry-After`.
async fn orders_are_refused_in_time(cluster: &Cluster) -> anyhow::Result<()> {
    let asked = Instant::now();
    let keys: Vec<String> = (0..40).map(|_| new_key()).collect();
    let answers: Vec<Answer> = try_join_all(keys.iter().map(|key| buy(cluster, "USD", "1", key))).await?;
    for answer in answers {
        ensure!(answer.status == 503 && answer.retry_after.is_some(), "{answer:?}");
    }
    ensure!(asked.elapsed() < ANSWERED_WITHIN, "took {:?}", asked.elapsed());
    Ok(())
}

async fn orders_are_accepted(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("orders are accepted", LIMIT, async || {
        Ok(buy(cluster, "USD", "1", &new_key()).await?.status == 200)
    })
    .await
}

fn signal(name: &str, processes: &[i32]) -> anyhow::Result<()> {
    let processes = processes.iter().map(i32::to_string);
    let status = Command::new("kill").arg(name).args(processes).status()?;
    ensure!(status.success(), "kill {name} failed");
    Ok(())
}

#[tokio::test]
async fn while_the_write_model_is_frozen_orders_are_refused_in_time() -> anyhow::Result<()> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    let cluster = Cluster::start(Options::only(&services).with_own_servers()).await?;
    orders_are_accepted(&cluster).await?;
    let sessions: Vec<i32> =
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            .fetch_all(cluster.write_model())
            .await?;
    cluster.pause_server(Server::WriteModel)?;
    signal("-STOP", &sessions)?;
    let refused = orders_are_refused_in_time(&cluster).await;
    signal("-CONT", &sessions)?;
    cluster.resume_server(Server::WriteModel)?;
    refused?;
    orders_are_accepted(&cluster).await
}

#[tokio::test]
async fn while_every_connection_to_the_write_model_waits_for_a_lock_orders_are_refused_in_time()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let mut lock = cluster.write_model().begin().await?;
    sqlx::query("LOCK TABLE buy_order").execute(&mut *lock).await?;
    orders_are_refused_in_time(&cluster).await?;
    lock.rollback().await?;
    orders_are_accepted(&cluster).await
}

#[tokio::test]
async fn while_btc_price_is_frozen_orders_are_refused_in_time() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    cluster.pause(Service::BtcPrice)?;
    orders_are_refused_in_time(&cluster).await?;
    cluster.resume(Service::BtcPrice)?;
    orders_are_accepted(&cluster).await
}

/// The numbers of threads and open files of a process.
fn held(process: u32) -> anyhow::Result<(usize, usize)> {
    let entries = |folder| Ok(fs::read_dir(format!("/proc/{process}/{folder}"))?.count());
    entries("task").and_then(|threads| anyhow::Ok((threads, entries("fd")?)))
}

#[tokio::test]
async fn a_frozen_broker_collects_neither_threads_nor_sockets_of_attempts_that_were_given_up()
-> anyhow::Result<()> {
    const ATTEMPTS: usize = 4;
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    orders_are_accepted(&cluster).await?;
    everything_is_projected(&cluster).await?;
    cluster.pause_server(Server::Broker)?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);

    let held_after = async |service: Service, attempts: usize| {
        wait_until("attempts are given up", LIMIT, async || {
            let lines = cluster.output(service);
            let given_up = |line: &&String| line.contains("no answer from the broker");
            Ok(lines.iter().filter(given_up).count() >= attempts)
        })
        .await?;
        held(cluster.pid(service).context("no process")?)
    };
    let services = [Service::CreateBuyOrder, Service::ReadModelSync];
    // The baseline is the first attempt: after it the pools are filled.
    let mut before = Vec::new();
    for service in services {
        before.push(held_after(service, 1).await?);
    }
    // One attempt may be in flight, and the pools of threads and connections vary a little. A leak per attempt would exceed this.
    for (service, before) in services.into_iter().zip(before) {
        let now = held_after(service, 1 + ATTEMPTS).await?;
        ensure!(
            now.0 < before.0 + ATTEMPTS && now.1 < before.1 + ATTEMPTS,
            "{}: threads and files were {before:?}, and are {now:?}",
            service.name()
        );
    }
    cluster.resume_server(Server::Broker)?;
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn connections_that_the_broker_closes_are_replaced_within_seconds() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    orders_are_accepted(&cluster).await?;
    everything_is_projected(&cluster).await?;
    close_connections(&cluster).await?;
    let closed = Instant::now();
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    wait_until("the order is relayed", LIMIT, async || {
        Ok(count(&cluster, "outbox").await? == 0)
    })
    .await?;
    everything_is_projected(&cluster).await?;
    ensure!(
        closed.elapsed() < Duration::from_secs(20),
        "took {:?}",
        closed.elapsed()
    );
    Ok(())
}
