//! One turn of the services or of `pgbench`.

use std::time::Duration;

use cluster::{Cluster, DatabaseAddress, Server, Service};

use crate::bench::Bench;
use crate::commits;
use crate::pgbench::{self, Work};
use crate::wrk::{self, Ask, Load};

/// Turns of each measurement, alternating with those that it is compared with. The median counts.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(2);

pub(super) fn turns(bench: &Bench) -> usize {
    if bench.quick { 1 } else { TURNS }
}

pub(super) fn turn(bench: &Bench) -> Duration {
    bench.duration().min(TURN)
}

pub(super) async fn place(
    bench: &mut Bench,
    cluster: &Cluster,
    connections: u32,
) -> anyhow::Result<wrk::Outcome> {
    let load = Load::unpaced(Ask::NewOrders, connections, turn(bench));
    bench
        .place_orders(cluster, &format!("orders, {}", name(connections)), load)
        .await
}

/// As [`place`], while the broker and the projection are paused, and so the relay waits. All orders are projected afterwards.
pub(super) async fn place_undisturbed(
    bench: &mut Bench,
    cluster: &Cluster,
    connections: u32,
) -> anyhow::Result<wrk::Outcome> {
    const NAME: &str = "orders, undisturbed";
    let from = commits::newest(cluster).await?;
    cluster.pause(Service::ReadModelSync)?;
    cluster.pause_server(Server::Broker)?;
    let url = cluster.url(Service::CreateBuyOrder);
    let load = Load::unpaced(Ask::NewOrders, connections, turn(bench));
    let outcome = bench.load(NAME, &url, load).await;
    cluster.resume_server(Server::Broker)?;
    cluster.resume(Service::ReadModelSync)?;
    let outcome = outcome?;
    bench.account_for(cluster, NAME, from, &outcome).await?;
    Ok(outcome)
}

pub(super) async fn by_pgbench(
    bench: &Bench,
    bare: &DatabaseAddress,
    clients: u32,
) -> anyhow::Result<pgbench::Outcome> {
    bench.by_pgbench(bare, Work::OneOrder, clients, turn(bench)).await
}

pub(super) fn name(connections: u32) -> String {
    if connections == 1 {
        "1 connection".to_owned()
    } else {
        format!("{connections} connections")
    }
}
