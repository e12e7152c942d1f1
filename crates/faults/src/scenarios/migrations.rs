//! Family 13: `migration` killed while it runs, and started twice at once, on empty databases.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use cluster::{Cluster, Options, Service};

use crate::client::Client;
use crate::ledger::Outcome;
use crate::load::new_order;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Number of kills on one set of databases. At first there is everything to apply, later less or nothing.
const KILLS: usize = 8;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(13, "migrations", |stage| {
        Box::pin(migrations(stage))
    })]
}

async fn migrations(stage: &mut Stage) -> anyhow::Result<()> {
    let mut random = stage.random.fork();
    let killed = async {
        let fresh = Cluster::start(Options::servers_only()).await?;
        for _ in 0..KILLS {
            fresh.launch(Service::Migration)?;
            Stage::last(Duration::from_millis(random.u64(0..60))).await;
            fresh.kill(Service::Migration).await?;
        }
        fresh.start_service(Service::Migration).await?;
        accepts_an_order(&fresh, &mut random).await
    };
    stage
        .fault("`migration` killed in the middle", "", killed)
        .await?;

    let mut random = stage.random.fork();
    let twice = async {
        let fresh = Cluster::start(Options::servers_only()).await?;
        fresh.launch(Service::Migration)?;
        fresh.start_extra(Service::Migration).await?;
        fresh.start_service(Service::Migration).await?;
        accepts_an_order(&fresh, &mut random).await
    };
    stage.fault("two `migration`s at once", "", twice).await?;

    let cluster = Arc::clone(&stage.cluster);
    let restarted = async {
        cluster.kill(Service::Migration).await?;
        cluster.launch(Service::Migration)?;
        cluster.kill(Service::Migration).await?;
        cluster.launch(Service::Migration)
    };
    stage
        .harmless_fault("`migration` killed, nothing to apply", "", restarted)
        .await
}

/// Checks that the schemas are complete.
async fn accepts_an_order(fresh: &Cluster, random: &mut fastrand::Rng) -> anyhow::Result<()> {
    for service in Service::OF_ORDERS
        .into_iter()
        .filter(|service| *service != Service::Migration)
    {
        fresh.start_service(service).await?;
    }
    let client = Client::new(
        vec![fresh.url(Service::CreateBuyOrder)],
        vec![fresh.url(Service::FetchBuyOrders)],
        fresh.authorization(),
    )?;
    let identity = new_order(random);
    let (outcome, wrong) = client.place(&identity, &identity.amount(), 0).await;
    ensure!(
        wrong.is_none(),
        "after the migration an order was answered {wrong:?}"
    );
    let Outcome::Acknowledged(order) = outcome else {
        bail!("after the migration an order was answered {outcome:?}")
    };
    let limit = Duration::from_secs(30);
    cluster::wait_until("the order is shown", limit, async || {
        Ok(client.shown_by_all(order.id).await)
    })
    .await
}
