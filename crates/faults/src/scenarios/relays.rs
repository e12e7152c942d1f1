//! Families 1 and 2, continued: of two relays the working one is killed, or frozen for longer than its lease.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Server, Service, wait_until};

use crate::books;
use crate::metrics;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::{Invariant, Violations};

/// A lease of 5 s, an attempt every half second, and a margin for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Orders are placed all the time.
const FOUND_WITHIN: Duration = Duration::from_secs(20);

/// Shorter than the lease: no relay publishes events that come now.
const PILED_UP_WITHIN: Duration = Duration::from_secs(4);

/// Counts the messages that the broker has confirmed.
const CONFIRMED: &str = "broker_publishes_total{outcome=\"confirmed\"}";

/// Number of messages after which it is clear which relay works.
const ENOUGH: u64 = 20;

/// Number of events that make a backlog.
const BACKLOG: i64 = 10;

pub(super) fn scenarios() -> Vec<Scenario> {
    let own = Options::default().with_own_servers();
    vec![
        Scenario::new(1, "relay-killed", |stage| Box::pin(killed(stage))).with_replicas(),
        Scenario::new(2, "relay-frozen", |stage| Box::pin(frozen(stage)))
            .with_replicas()
            .with_options(own),
    ]
}

/// The other relay publishes what the dead one has left, and what came until it took over.
async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut taken_over = Ok(());
    let killed = async {
        let relay = working_relay(&cluster, &shared.violations).await?;
        cluster.kill(&relay).await?;
        let last = wait_for_backlog(&cluster).await?;
        taken_over = wait_until_relayed(&cluster, last).await;
        cluster.launch(&relay)
    };
    stage
        .fault("`kill -9` of the relay that works", "create_buy_order", killed)
        .await?;
    check(stage, taken_over);
    Ok(())
}

/// The relay is frozen with messages in flight that the broker then confirms. Only the frozen relay knows of the confirms, so the other one
/// publishes the messages again. When the first one continues, two relays work for a moment.
async fn frozen(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut taken_over = Ok(());
    let frozen = async {
        let relay = working_relay(&cluster, &shared.violations).await?;
        let holder = books::relay(cluster.write_model()).await?;
        cluster.pause_server(Server::Broker)?;
        let last = wait_for_backlog(&cluster).await?;
        cluster.pause(&relay)?;
        cluster.resume_server(Server::Broker)?;
        taken_over = wait_until_relayed(&cluster, last).await;
        wait_until("another relay has the lease", TAKEN_OVER_WITHIN, async || {
            let other = books::relay(cluster.write_model()).await?;
            Ok(other.is_some() && other != holder)
        })
        .await?;
        cluster.resume(&relay)
    };
    stage
        .fault(
            "SIGSTOP of the relay that works, beyond its lease, SIGCONT",
            "create_buy_order",
            frozen,
        )
        .await?;
    check(stage, taken_over);
    Ok(())
}

fn check(stage: &Stage, taken_over: anyhow::Result<()>) {
    if let Err(why) = taken_over {
        stage.shared.violations.add(Invariant::I15, format!("{why:#}"));
    }
}

/// Waits until there is a backlog, and returns the id of its last event.
async fn wait_for_backlog(cluster: &Cluster) -> anyhow::Result<i64> {
    wait_until("events pile up", PILED_UP_WITHIN, async || {
        Ok(books::outbox_depth(cluster.write_model()).await? >= BACKLOG)
    })
    .await?;
    let last = books::newest_event(cluster.write_model()).await?;
    last.context("the backlog is gone")
}

/// Waits until the backlog is published.
async fn wait_until_relayed(cluster: &Cluster, last: i64) -> anyhow::Result<()> {
    wait_until("the backlog is taken over", TAKEN_OVER_WITHIN, async || {
        let oldest = books::oldest_event(cluster.write_model()).await?;
        Ok(oldest.is_none_or(|oldest| oldest > last))
    })
    .await
}

/// The URL of the process of `create_buy_order` whose relay works. If both relays work, it is a violation.
async fn working_relay(cluster: &Cluster, violations: &Violations) -> anyhow::Result<String> {
    let first = cluster.url(Service::CreateBuyOrder);
    let mut extras = cluster.extras(Service::CreateBuyOrder);
    let second = extras.pop().context("there is no second process")?;
    let sent = async || {
        anyhow::Ok([
            metrics::value(cluster, &first, CONFIRMED).await?,
            metrics::value(cluster, &second, CONFIRMED).await?,
        ])
    };
    let before = sent().await?;
    let mut since = [0; 2];
    wait_until("a relay publishes", FOUND_WITHIN, async || {
        let now = sent().await?;
        since = [now[0] - before[0], now[1] - before[1]];
        Ok(since.into_iter().any(|count| count >= ENOUGH))
    })
    .await?;
    if since.into_iter().all(|count| count > 0) {
        violations.add(
            Invariant::I15,
            format!("two relays work at once: they sent {since:?} messages"),
        );
    }
    Ok(if since[0] > since[1] { first } else { second })
}
