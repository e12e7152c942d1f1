//! One turn of the services or of `pgbench`.

use std::time::Duration;

use cluster::{Cluster, DatabaseAddress};

use crate::bench::Bench;
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
