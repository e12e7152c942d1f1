//! 12, too: the wall clock of the server that dates orders and the relay's lease is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Server, Service, wait_until};

use crate::books;
use crate::scenario::Scenario;
use crate::stage::{RECOVERY_LIMIT, Stage};
use crate::violations::Invariant;

/// Much longer than a lease.
const BACK: &str = "-10m";

/// Orders come all the time, and so do events.
const WAITING_WITHIN: Duration = Duration::from_secs(20);

/// Metrics of the outbox are asked of the database every five seconds.
const MEASURED: Duration = Duration::from_secs(7);

pub(super) fn scenarios() -> Vec<Scenario> {
    let own = Options::default().with_own_servers();
    vec![Scenario::new(12, "database-clock-back", |stage| Box::pin(back(stage))).with_options(own)]
}

async fn back(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    stage.shared.misdated.store(true, Ordering::Relaxed);
    let mut negative = Vec::new();
    let mut relayed = Ok(());
    let set_back = async {
        let last = set_back_with_lease_held(&cluster).await?;
        negative = negative_metrics(&cluster).await;
        cluster.resume_server(Server::Broker)?;
        relayed = wait_until("events of before are relayed", RECOVERY_LIMIT, async || {
            Ok(books::oldest_event(cluster.write_model())
                .await?
                .is_none_or(|oldest| oldest > last))
        })
        .await;
        Ok(())
    };
    stage
        .fault(
            "PostgreSQL: clock 10 minutes back, with the lease held",
            "write_model",
            set_back,
        )
        .await?;
    if let Err(why) = relayed {
        stage.shared.violations.add(Invariant::I8, format!("{why:#}"));
    }
    for metric in negative {
        stage
            .shared
            .violations
            .add(Invariant::I0, format!("an age below zero: {metric}"));
    }
    let right_again = async {
        cluster.set_server_clock(Server::WriteModel, None)?;
        cluster.stop_server_immediately(Server::WriteModel).await?;
        cluster.start_server(Server::WriteModel).await
    };
    stage
        .fault("PostgreSQL: clock right again", "write_model", right_again)
        .await
}

/// The broker confirms nothing, so that events wait, and the relay dies, so that it does not give its lease back: it is held until a time that
/// is minutes ahead now. Answers the last event of before.
async fn set_back_with_lease_held(cluster: &Cluster) -> anyhow::Result<i64> {
    let pool = cluster.write_model();
    cluster.pause_server(Server::Broker)?;
    wait_until("events wait", WAITING_WITHIN, async || {
        Ok(books::outbox_depth(pool).await? > 0)
    })
    .await?;
    cluster.kill(Service::CreateBuyOrder).await?;
    cluster.set_server_clock(Server::WriteModel, Some(BACK))?;
    cluster.stop_server_immediately(Server::WriteModel).await?;
    cluster.start_server(Server::WriteModel).await?;
    // What the crash took of it are seconds: a renewal need not be on disk at once.
    let held: bool =
        sqlx::query_scalar("SELECT held_until > clock_timestamp() + interval '1 minute' FROM relay_lease")
            .fetch_one(pool)
            .await?;
    ensure!(held, "no relay held the lease when the clock was set back");
    let last = books::newest_event(pool).await?;
    cluster.launch(Service::CreateBuyOrder)?;
    last.context("no event waited when the clock was set back")
}

/// Metrics whose value was negative while events of the future waited.
async fn negative_metrics(cluster: &Cluster) -> Vec<String> {
    let began = Instant::now();
    let mut negative = Vec::new();
    while began.elapsed() < MEASURED {
        for service in [
            Service::CreateBuyOrder,
            Service::ReadModelSync,
            Service::FetchBuyOrders,
        ] {
            // One that only just starts does not answer.
            for metric in negative_lines(&metrics(cluster, service).await.unwrap_or_default()) {
                let metric = format!("{}: {metric}", service.name());
                if !negative.contains(&metric) {
                    negative.push(metric);
                }
            }
        }
        Stage::last(Duration::from_millis(500)).await;
    }
    negative
}

async fn metrics(cluster: &Cluster, service: Service) -> anyhow::Result<String> {
    let url = cluster.url(service) + "/metrics";
    let limit = Duration::from_secs(3);
    let answer = cluster.http().get(url).timeout(limit).send().await?;
    answer.text().await.context("no text")
}

/// Nothing that is counted or timed here can be below zero.
fn negative_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#')).filter(|line| {
        line.rsplit(' ')
            .next()
            .is_some_and(|value| value.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_below_zero_are_found() {
        let text = "# HELP a An age, -1 where unknown -1\na 1\nb{of=\"x -1\"} 0\nc{of=\"x\"} -0.5\nd -600\n";
        let found: Vec<_> = negative_lines(text).collect();
        assert_eq!(found, ["c{of=\"x\"} -0.5", "d -600"]);
    }
}
