//! 6: the network between each pair that talks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Link, Options, Service, Traffic};

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Longer than a query may take, and than two heartbeats.
const SILENT: Duration = Duration::from_secs(25);
const DISTURBED: Duration = Duration::from_secs(4);

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
    Ok(())
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
