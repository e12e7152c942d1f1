//! Family 6: the network between each pair of processes that communicate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Link, Options, Service, TcpProxy, Traffic, wait_until};
use futures_util::future::join_all;

use crate::load::{Shared, new_order};
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Longer than a query may take, and than two heartbeats.
const SILENT: Duration = Duration::from_secs(25);
const DISTURBED: Duration = Duration::from_secs(4);

/// As by a middlebox that has forgotten the connections and still acknowledges packets: harder than loss, because TCP does not notice.
pub(super) const SILENCED: &str = "network: open connections silent for ever";
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Clients of a crowd, the number of crowds, and the pause between two of them: long enough that their requests are not coalesced.
const CROWD: usize = 6;
const CROWDS: usize = 20;
const NEXT_CROWD: Duration = Duration::from_millis(80);
/// Time for delayed requests to be answered. Their connections are still in the pool then.
const ANSWERED: Duration = Duration::from_millis(300);
/// Longer than the pool keeps a connection that is not needed.
const IDLE: Duration = Duration::from_secs(2);
const AT_WORK: Duration = Duration::from_secs(1);
/// Time until requests are in flight.
const IN_FLIGHT: Duration = Duration::from_millis(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    let links = Link::ALL.into_iter().map(|link| {
        Scenario::new(6, format!("network-{}", link.name()), move |stage| {
            Box::pin(disturbed(stage, link))
        })
        .with_options(Options::default().with_links(&[link]))
    });
    let commit = Scenario::new(6, "commit-answer-swallowed", |stage| {
        Box::pin(commit_answer_swallowed(stage))
    })
    .with_options(Options::default().with_links(&[Link::CreateBuyOrderToWriteModel]));
    links.chain([commit]).collect()
}

/// Network faults with their durations, in random order.
pub(super) fn disturbances(random: &mut fastrand::Rng) -> [(&'static str, Traffic, Duration); 6] {
    let mut kinds = [
        ("network: refused", Traffic::Refuse, DISTURBED),
        ("network: reset", Traffic::Reset, DISTURBED),
        (
            "network: silent towards the server",
            Traffic::DropToServer,
            SILENT,
        ),
        (
            "network: silent towards the client",
            Traffic::DropToClient,
            SILENT,
        ),
        (
            "network: 300 ms latency",
            Traffic::Latency(Duration::from_millis(300)),
            DISTURBED,
        ),
        ("network: 20 KB/s", Traffic::Throttle(20_000), DISTURBED),
    ];
    random.shuffle(&mut kinds);
    kinds
}

async fn disturbed(stage: &mut Stage, link: Link) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for (kind, traffic, duration) in disturbances(&mut stage.random) {
        let disturbed = async {
            cluster.link(link)?.set(traffic);
            for service in services_that_connect_only_at_start(link) {
                cluster.kill(*service).await?;
                cluster.launch(*service)?;
            }
            Stage::last(duration).await;
            cluster.link(link)?.set(Traffic::Pass);
            Ok(())
        };
        stage.fault(kind, link.name(), disturbed).await?;
    }
    let shared = Arc::clone(&stage.shared);
    let mut random = stage.random.fork();
    let silenced = async {
        let services = services_that_connect_only_at_start(link);
        if services.is_empty() {
            silence_in_use(&shared, &mut random, cluster.link(link)?).await
        } else {
            silence_at_start(&cluster, link, services).await
        }
    };
    stage.endless_fault(SILENCED, link.name(), silenced).await
}

/// Silences all connections of a link when as many as possible are open: first while they are idle, as middleboxes forget idle ones, then
/// while some are in use.
pub(super) async fn silence_in_use(
    shared: &Arc<Shared>,
    random: &mut fastrand::Rng,
    link: &TcpProxy,
) -> anyhow::Result<()> {
    // Pools open more connections when the existing ones do not answer.
    link.set(Traffic::DropToClient);
    for _ in 0..CROWDS {
        tokio::task::spawn_local(crowd(Arc::clone(shared), random.fork()));
        Stage::last(NEXT_CROWD).await;
    }
    shared.resting.store(true, Ordering::Relaxed);
    link.set(Traffic::Pass);
    Stage::last(ANSWERED).await;
    let idle = link.silence_open();
    Stage::last(IDLE).await;
    shared.resting.store(false, Ordering::Relaxed);
    Stage::last(AT_WORK).await;
    // Not awaited: these requests are in flight when the connections are silenced.
    tokio::task::spawn_local(crowd(Arc::clone(shared), random.fork()));
    Stage::last(IN_FLIGHT).await;
    let in_use = link.silence_open();
    ensure!(idle + in_use > 0, "there was no connection to silence");
    Ok(())
}

/// Silences the first connections of starting services before anything was sent.
async fn silence_at_start(cluster: &Cluster, link: Link, services: &[Service]) -> anyhow::Result<()> {
    let proxy = cluster.link(link)?;
    for service in services {
        cluster.kill(*service).await?;
    }
    proxy.set(Traffic::DropBoth);
    let before = proxy.connections();
    for service in services {
        cluster.launch(*service)?;
    }
    wait_until("the services connect", CONNECT_LIMIT, async || {
        Ok(proxy.connections() >= before + services.len())
    })
    .await?;
    proxy.silence_open();
    proxy.set(Traffic::Pass);
    Ok(())
}

/// Sends requests of several clients at once.
async fn crowd(shared: Arc<Shared>, mut random: fastrand::Rng) {
    let orders: Vec<_> = (0..CROWD).map(|_| new_order(&mut random)).collect();
    let placed = orders.iter().enumerate().map(async |(number, order)| {
        shared.place(order, &order.amount(), number).await;
    });
    let shown = (0..CROWD).map(async |number| {
        // Only the number of these requests matters; the walkers check pages.
        let _ = shared.client.page(None, 1, number).await;
    });
    tokio::join!(join_all(placed), join_all(shown));
}

/// The services that use a link only while they start. They are restarted, so that the fault affects them.
fn services_that_connect_only_at_start(link: Link) -> &'static [Service] {
    match link {
        Link::ToMigration => &[
            Service::CreateBuyOrder,
            Service::ReadModelSync,
            Service::FetchBuyOrders,
        ],
        Link::MigrationToWriteModel | Link::MigrationToReadModel => &[Service::Migration],
        _ => &[],
    }
}

/// The order is written, and neither the service nor the client learns it.
async fn commit_answer_swallowed(stage: &mut Stage) -> anyhow::Result<()> {
    let link = Link::CreateBuyOrderToWriteModel;
    let cluster = Arc::clone(&stage.cluster);
    for _ in 0..3 {
        let count = async || {
            let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order")
                .fetch_one(cluster.write_model())
                .await?;
            anyhow::Ok(orders)
        };
        let swallowed = async {
            let before = count().await?;
            cluster.link(link)?.set(Traffic::SwallowCommitAnswer);
            Stage::last(DISTURBED).await;
            let after = count().await?;
            cluster.link(link)?.set(Traffic::Pass);
            (after > before)
                .then_some(())
                .context("no order was committed meanwhile")
        };
        stage
            .fault("network: the answer to COMMIT swallowed", link.name(), swallowed)
            .await?;
    }
    Ok(())
}
