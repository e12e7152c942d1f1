//! Databases to which the services and the bare server add orders in turns.

use std::time::Duration;

use cluster::{Cluster, DatabaseAddress, Service};

use crate::bench::{BATCH, Bench, CONNECTIONS};
use crate::commits;
use crate::figures::figure;
use crate::pgbench::Work;
use crate::spent::log_bytes;
use crate::wrk::{Ask, Load};

const TURN: Duration = Duration::from_secs(2);
/// After a checkpoint the first change of a page writes the whole page to the WAL, and with random keys each order changes another page of
/// each index. After this time most pages were changed, and the WAL per order is about the average between two checkpoints.
const WARM_UP: Duration = Duration::from_secs(15);

pub(super) struct Book<'a> {
    name: String,
    cluster: &'a Cluster,
    /// The database of the bare server, if it is not that of the services.
    separate: Option<DatabaseAddress>,
    pub(super) turns: Vec<Turn>,
}

/// The results of one turn.
pub(super) struct Turn {
    pub(super) orders_per_second: f64,
    pub(super) log_bytes_per_order: f64,
    pub(super) bare_per_second: f64,
}

impl<'a> Book<'a> {
    /// The orders that the cluster has.
    pub(super) fn of(cluster: &'a Cluster, name: String) -> Self {
        Self {
            name,
            cluster,
            separate: None,
            turns: Vec::new(),
        }
    }

    /// No orders except those of the turns. The bare server adds to another empty database, so that neither grows by both.
    pub(super) async fn empty(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            separate: Some(cluster.another_write_model().await?),
            ..Self::of(cluster, "none stored".to_owned())
        })
    }

    /// Warms up the caches, which would otherwise slow down the first turn.
    pub(super) async fn warm_up(&self, bench: &mut Bench) -> anyhow::Result<()> {
        let turn = turn(bench);
        self.by_services(bench, turn).await?;
        let by_bare = if self.separate.is_some() { turn } else { WARM_UP };
        self.by_bare_server(bench, by_bare).await?;
        Ok(())
    }

    pub(super) async fn take_turn(&mut self, bench: &mut Bench) -> anyhow::Result<()> {
        let turn = turn(bench);
        let (orders_per_second, log_bytes_per_order) = self.by_services(bench, turn).await?;
        let bare_per_second = self.by_bare_server(bench, turn).await?;
        self.turns.push(Turn {
            orders_per_second,
            log_bytes_per_order,
            bare_per_second,
        });
        Ok(())
    }

    /// Places orders through the services. Returns orders per second, and bytes of WAL per order in both models. On return all are projected, so
    /// that the next turn has the machine for itself.
    async fn by_services(&self, bench: &mut Bench, duration: Duration) -> anyhow::Result<(f64, f64)> {
        let log_bytes = async || -> anyhow::Result<u64> {
            Ok(log_bytes(self.cluster.write_model()).await? + log_bytes(self.cluster.read_model()).await?)
        };
        let from = commits::newest(self.cluster).await?;
        let before = log_bytes().await?;
        let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, duration);
        let outcome = bench
            .place_orders(self.cluster, &format!("growth, {}", self.name), load)
            .await?;
        let written = log_bytes().await? - before;
        let orders = commits::orders_since(self.cluster, from).await?;
        Ok((outcome.per_second(), figure(written) / figure(orders)))
    }

    /// Writes orders with the bare server while the service is paused. Returns orders per second. On return all are projected.
    async fn by_bare_server(&self, bench: &Bench, duration: Duration) -> anyhow::Result<f64> {
        let database = self
            .separate
            .as_ref()
            .unwrap_or(&self.cluster.addresses().write_model);
        self.cluster.pause(Service::CreateBuyOrder)?;
        let work = Work::Batch { orders: BATCH };
        let outcome = bench.by_pgbench(database, work, 1, duration).await;
        self.cluster.resume(Service::CreateBuyOrder)?;
        commits::wait_until_projected(self.cluster).await?;
        Ok(outcome?.per_second * f64::from(BATCH))
    }
}

fn turn(bench: &Bench) -> Duration {
    bench.duration().min(TURN)
}
