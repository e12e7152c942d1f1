//! A book of orders, to which the services and the bare server add in turns.

use std::time::Duration;

use cluster::{Cluster, DatabaseAddress, Service};

use super::NAME;
use crate::bench::{Bench, quiet};
use crate::commits;
use crate::figures::figure;
use crate::groups::{BATCH, CONNECTIONS};
use crate::pgbench::Work;
use crate::spent::log_bytes;
use crate::wrk::{Ask, Load};

const TURN: Duration = Duration::from_secs(2);
/// The first change of a page after a checkpoint puts the whole page into the log, and with random keys each order changes another page of each
/// index. After so many orders most pages were changed, and the log has about as much for an order as on average between two checkpoints.
const WARM_UP: Duration = Duration::from_secs(15);

pub(super) struct Book<'a> {
    name: String,
    cluster: &'a Cluster,
    /// Where the bare server adds, if that is not the book of the services itself.
    apart: Option<DatabaseAddress>,
    pub(super) turns: Vec<Turn>,
}

/// What came of one turn.
pub(super) struct Turn {
    pub(super) orders_per_second: f64,
    pub(super) log_bytes_per_order: f64,
    pub(super) bare_per_second: f64,
}

impl<'a> Book<'a> {
    /// As many orders as the cluster has.
    pub(super) fn of(cluster: &'a Cluster, name: String) -> Self {
        Self {
            name,
            cluster,
            apart: None,
            turns: Vec::new(),
        }
    }

    /// No orders but those of the turns. The bare server adds to another book, which also has none, so that neither grows by both.
    pub(super) async fn empty(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            apart: Some(cluster.another_write_model().await?),
            ..Self::of(cluster, "none stored".to_owned())
        })
    }

    /// Whoever is measured first would pay for the first touch of everything.
    pub(super) async fn warm_up(&self, bench: &mut Bench) -> anyhow::Result<()> {
        let turn = turn(bench);
        self.by_services(bench, turn).await?;
        let by_bare = if self.apart.is_some() { turn } else { WARM_UP };
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

    /// Orders a second, and what one wrote to the logs of both models. On return all are projected, so that the other has the machine for
    /// itself.
    async fn by_services(&self, bench: &mut Bench, duration: Duration) -> anyhow::Result<(f64, f64)> {
        let log_bytes = async || -> anyhow::Result<u64> {
            Ok(log_bytes(self.cluster.write_model()).await? + log_bytes(self.cluster.read_model()).await?)
        };
        let from = commits::newest(self.cluster).await?;
        let before = log_bytes().await?;
        let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, duration);
        let outcome = bench
            .place_orders(self.cluster, &format!("{NAME}, {}", self.name), load)
            .await?;
        let written = log_bytes().await? - before;
        let orders = commits::orders_since(self.cluster, from).await?;
        Ok((outcome.per_second(), figure(written) / figure(orders)))
    }

    /// Orders a second. The service stands still meanwhile; on return all are projected.
    async fn by_bare_server(&self, bench: &Bench, duration: Duration) -> anyhow::Result<f64> {
        let database = self
            .apart
            .as_ref()
            .unwrap_or(&self.cluster.addresses().write_model);
        self.cluster.pause(Service::CreateBuyOrder)?;
        let work = Work::Batch { orders: BATCH };
        let outcome = bench.by_pgbench(database, work, 1, duration).await;
        self.cluster.resume(Service::CreateBuyOrder)?;
        quiet(self.cluster).await?;
        Ok(outcome?.per_second * f64::from(BATCH))
    }
}

fn turn(bench: &Bench) -> Duration {
    bench.duration().min(TURN)
}
