//! 1 and 2, too: of two relays the one that works is killed, or frozen for longer than its lease.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Server, Service, wait_until};

use crate::books;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::{Invariant, Violations};

/// A lease of 5 s, asked for twice a second, and room for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Orders come all the time.
const FOUND_WITHIN: Duration = Duration::from_secs(20);

/// Less than the lease: events that come now find no relay.
const PILED_UP_WITHIN: Duration = Duration::from_secs(4);

/// Messages that tell which relay works.
const SEEN: u64 = 20;

/// Events that make a backlog.
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

/// The other relay takes over what the dead one left, and what came until then.
async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut taken_over = Ok(());
    let killed = async {
        let relay = Process::that_relays(&cluster, &shared.violations).await?;
        relay.kill(&cluster).await?;
        let last = piled_up(&cluster).await?;
        taken_over = gone(&cluster, last).await;
        relay.launch(&cluster)
    };
    stage
        .fault("`kill -9` of the relay that works", "create_buy_order", killed)
        .await?;
    note(stage, taken_over);
    Ok(())
}

/// It is frozen with messages in hand that the broker then confirms, so that the other one sends them again: nobody else knows of the confirms.
/// When it goes on there are two for a moment.
async fn frozen(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut taken_over = Ok(());
    let frozen = async {
        let relay = Process::that_relays(&cluster, &shared.violations).await?;
        let holder = books::relay(cluster.write_model()).await?;
        cluster.pause_server(Server::Broker)?;
        let last = piled_up(&cluster).await?;
        relay.pause(&cluster)?;
        cluster.resume_server(Server::Broker)?;
        taken_over = gone(&cluster, last).await;
        wait_until("another relay has the lease", TAKEN_OVER_WITHIN, async || {
            let other = books::relay(cluster.write_model()).await?;
            Ok(other.is_some() && other != holder)
        })
        .await?;
        relay.resume(&cluster)
    };
    stage
        .fault(
            "SIGSTOP of the relay that works, beyond its lease, SIGCONT",
            "create_buy_order",
            frozen,
        )
        .await?;
    note(stage, taken_over);
    Ok(())
}

fn note(stage: &Stage, taken_over: anyhow::Result<()>) {
    if let Err(why) = taken_over {
        stage.shared.violations.add(Invariant::I15, format!("{why:#}"));
    }
}

/// Waits until there is a backlog, and answers its last event.
async fn piled_up(cluster: &Cluster) -> anyhow::Result<i64> {
    wait_until("events pile up", PILED_UP_WITHIN, async || {
        Ok(books::outbox_depth(cluster.write_model()).await? >= BACKLOG)
    })
    .await?;
    let last = books::newest_event(cluster.write_model()).await?;
    last.context("the backlog is gone")
}

/// Waits until the backlog is relayed.
async fn gone(cluster: &Cluster, last: i64) -> anyhow::Result<()> {
    wait_until("the backlog is taken over", TAKEN_OVER_WITHIN, async || {
        let oldest = books::oldest_event(cluster.write_model()).await?;
        Ok(oldest.is_none_or(|oldest| oldest > last))
    })
    .await
}

/// One of the two processes of `create_buy_order`.
enum Process {
    First,
    Extra(String),
}

impl Process {
    /// The one whose relay works; that the other one works, too, is a violation.
    async fn that_relays(cluster: &Cluster, violations: &Violations) -> anyhow::Result<Self> {
        let first = cluster.url(Service::CreateBuyOrder);
        let mut extras = cluster.extras(Service::CreateBuyOrder);
        let second = extras.pop().context("there is no second process")?;
        let sent = async || {
            anyhow::Ok([
                confirmed(cluster, &first).await?,
                confirmed(cluster, &second).await?,
            ])
        };
        let before = sent().await?;
        let mut since = [0; 2];
        wait_until("a relay publishes", FOUND_WITHIN, async || {
            let now = sent().await?;
            since = [now[0] - before[0], now[1] - before[1]];
            Ok(since.into_iter().any(|count| count >= SEEN))
        })
        .await?;
        if since.into_iter().all(|count| count > 0) {
            violations.add(
                Invariant::I15,
                format!("two relays work at once: they sent {since:?} messages"),
            );
        }
        Ok(if since[0] > since[1] {
            Self::First
        } else {
            Self::Extra(second)
        })
    }

    async fn kill(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::First => cluster.kill(Service::CreateBuyOrder).await,
            Self::Extra(url) => cluster.kill_extra(url).await,
        }
        .map(drop)
    }

    fn launch(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::First => cluster.launch(Service::CreateBuyOrder),
            Self::Extra(url) => cluster.launch_extra(url),
        }
    }

    fn pause(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::First => cluster.pause(Service::CreateBuyOrder),
            Self::Extra(url) => cluster.pause_extra(url),
        }
    }

    fn resume(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::First => cluster.resume(Service::CreateBuyOrder),
            Self::Extra(url) => cluster.resume_extra(url),
        }
    }
}

/// Messages of the process at this URL that the broker has confirmed.
async fn confirmed(cluster: &Cluster, url: &str) -> anyhow::Result<u64> {
    const METRIC: &str = "broker_publishes_total{outcome=\"confirmed\"} ";
    let limit = Duration::from_secs(3);
    let answer = cluster.http().get(format!("{url}/metrics")).timeout(limit);
    let text = answer.send().await?.text().await?;
    let count = text.lines().find_map(|line| line.strip_prefix(METRIC));
    count
        .with_context(|| format!("no {METRIC}at {url}"))?
        .parse()
        .context("no count")
}
