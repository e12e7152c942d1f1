//! One run: a cluster, its load, one scenario and the checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Service, wait_until};

use crate::audit;
use crate::books;
use crate::client::Client;
use crate::ledger::Outcome;
use crate::load::{Load, Shared};
use crate::report::Row;
use crate::scenario::Scenario;
use crate::stage::{RECOVERY_LIMIT, Stage};
use crate::violations::Invariant;
use crate::vitals::Census;
use crate::watcher::Watcher;

/// Load before the first fault, so that pools are full when the resources of the processes are measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// The results of a run.
#[derive(Debug)]
pub struct Outcomes {
    /// One per kind of fault.
    pub rows: Vec<Row>,
    /// Violated invariants and errors. Empty means success.
    pub failures: Vec<String>,
    /// The last lines of every service, if something failed.
    pub last_lines: String,
}

/// Runs a scenario with this seed.
pub async fn run(scenario: &Scenario, seed: u64) -> Outcomes {
    match scenario.start().await.context("the cluster did not start") {
        Err(error) => Outcomes {
            rows: Vec::new(),
            failures: vec![format!("{error:#}")],
            last_lines: String::new(),
        },
        Ok(cluster) => play(scenario, seed, Arc::new(cluster)).await,
    }
}

async fn play(scenario: &Scenario, seed: u64, cluster: Arc<Cluster>) -> Outcomes {
    let urls = |service| [vec![cluster.url(service)], cluster.extras(service)].concat();
    let new = if scenario.strict {
        Client::without_reuse
    } else {
        Client::new
    };
    let client = new(
        urls(Service::CreateBuyOrder),
        urls(Service::FetchBuyOrders),
        cluster.authorization(),
    );
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    match client {
        Err(error) => failures.push(format!("{error:#}")),
        Ok(client) => {
            let shared = Arc::new(Shared::new(client));
            match play_and_check(scenario, seed, &cluster, &shared).await {
                Ok(counted) => rows = counted,
                Err(error) => failures.push(format!("{error:#}")),
            }
            failures.extend(shared.violations.sentences());
        }
    }
    Outcomes {
        rows,
        last_lines: if failures.is_empty() {
            String::new()
        } else {
            cluster.last_lines()
        },
        failures,
    }
}

async fn play_and_check(
    scenario: &Scenario,
    seed: u64,
    cluster: &Arc<Cluster>,
    shared: &Arc<Shared>,
) -> anyhow::Result<Vec<Row>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let load = Load::start(shared, &mut random).await?;
    let watcher = Watcher::start(cluster, shared);
    tokio::time::sleep(WARM_UP).await;
    let before = Census::take(cluster).await?;

    let title = format!("{:>2} {} (seed {seed})", scenario.number, scenario.name);
    let mut stage = Stage::new(title, Arc::clone(cluster), Arc::clone(shared), random);
    let played = scenario.play(&mut stage).await;
    load.stop().await;
    played?;

    wait_until_quiet(cluster, shared).await?;
    audit::repeat_unknown(shared).await;
    wait_until_quiet(cluster, shared).await?;
    if watcher.stop() == 0 {
        shared.violations.add(Invariant::I3, "no snapshot was taken");
    }
    if shared.walks.load(Ordering::Relaxed) == 0 {
        shared
            .violations
            .add(Invariant::I6, "no walk through the pages was completed");
    }
    let damage = audit::check(cluster, shared, &stage.poisoned).await?;
    before.wait_until_back(cluster, &shared.violations).await?;

    let entries = shared.ledger.entries();
    if scenario.strict {
        for entry in entries
            .iter()
            .filter(|entry| matches!(entry.outcome, Outcome::Unknown(_)))
        {
            shared
                .violations
                .add(Invariant::I0, format!("a request failed: {entry:?}"));
        }
    }
    Ok(Row::of_run(scenario.number, &stage.faults, &entries, &damage))
}

/// Waits until every order and every void is projected and the outbox is empty. If that takes longer than promised, it is a violation.
async fn wait_until_quiet(cluster: &Cluster, shared: &Shared) -> anyhow::Result<()> {
    let state = async || {
        let depth = books::outbox_depth(cluster.write_model()).await?;
        let size = books::size(cluster.write_model()).await?;
        let projected = books::projected_size(cluster.read_model()).await?;
        anyhow::Ok((depth, size, projected))
    };
    let quiet = wait_until("the cluster is quiet", RECOVERY_LIMIT, async || {
        let (depth, size, projected) = state().await?;
        Ok(depth == 0 && size == projected)
    });
    if let Err(error) = quiet.await {
        let (depth, size, projected) = state().await?;
        shared.violations.add(
            Invariant::I8,
            format!("{error:#}: outbox {depth}, write model {size:?}, read model {projected:?}"),
        );
    }
    Ok(())
}
