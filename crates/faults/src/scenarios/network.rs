//! 6: the network between each pair that talks.

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

/// As by a middlebox that has forgotten them and still acknowledges: the harder case, as TCP sees nothing of it.
pub(super) const FORGOTTEN: &str = "network: open connections silent for ever";
const OPEN_WITHIN: Duration = Duration::from_secs(20);
/// Clients that come at once, how often they come, and when again: so much later that they are asked for apart from those before.
const CROWD: usize = 6;
const CROWDS: usize = 20;
const NEXT_CROWD: Duration = Duration::from_millis(80);
/// Of requests that were held up; connections are still in hand then.
const ANSWERED: Duration = Duration::from_millis(300);
/// Longer than a connection is kept in hand that nobody needs.
const IDLE: Duration = Duration::from_secs(2);
const AT_WORK: Duration = Duration::from_secs(1);
/// Of requests that are to meet a silence.
const UNDER_WAY: Duration = Duration::from_millis(10);

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

/// What a network does, and for how long, in an order of chance.
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
            for service in talks_at_start_only(link) {
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
        let services = talks_at_start_only(link);
        if services.is_empty() {
            silence_in_use(&shared, &mut random, cluster.link(link)?).await
        } else {
            silence_at_start(&cluster, link, services).await
        }
    };
    stage.endless_fault(FORGOTTEN, link.name(), silenced).await
}

/// Has a link fall silent that has every connection open that it ever has: first while nobody uses them, as middleboxes forget idle ones, and
/// then while some are in use.
pub(super) async fn silence_in_use(
    shared: &Arc<Shared>,
    random: &mut fastrand::Rng,
    link: &TcpProxy,
) -> anyhow::Result<()> {
    // Pools open another connection where those they have do not answer.
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
    // Not waited for: they meet the silence.
    tokio::task::spawn_local(crowd(Arc::clone(shared), random.fork()));
    Stage::last(UNDER_WAY).await;
    let in_use = link.silence_open();
    ensure!(idle + in_use > 0, "there was no connection to silence");
    Ok(())
}

/// The first connections of services that start fall silent before anything was said.
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
    wait_until("the services connect", OPEN_WITHIN, async || {
        Ok(proxy.connections() >= before + services.len())
    })
    .await?;
    proxy.silence_open();
    proxy.set(Traffic::Pass);
    Ok(())
}

/// Clients that come at once.
async fn crowd(shared: Arc<Shared>, mut random: fastrand::Rng) {
    let orders: Vec<_> = (0..CROWD).map(|_| new_order(&mut random)).collect();
    let placed = orders.iter().enumerate().map(async |(number, order)| {
        shared.place(order, &order.amount(), number).await;
    });
    let shown = (0..CROWD).map(async |number| {
        // A walker would complain; of these only the number matters.
        let _ = shared.client.page(None, 1, number).await;
    });
    tokio::join!(join_all(placed), join_all(shown));
}

/// Services that use a link while they start, and then no more: to meet the fault they are started anew.
fn talks_at_start_only(link: Link) -> &'static [Service] {
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

/// The order is written, and neither the service nor the client can know.
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
