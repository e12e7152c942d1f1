//! Family 12, continued: the wall clock of the write model's server, which dates orders and the relay's lease, is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Server, Service, wait_until};

use crate::books;
use crate::metrics;
use crate::scenario::Scenario;
use crate::stage::{RECOVERY_LIMIT, Stage};
use crate::violations::Invariant;

/// Much longer than a lease.
const BACK: &str = "-10m";

/// Orders are placed all the time, so events come soon.
const WAITING_WITHIN: Duration = Duration::from_secs(20);

/// The outbox metrics are read from the database every five seconds.
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

/// Freezes the broker, so that events wait, and kills the relay, so that it does not release its lease. After the clock was set back the
/// lease ends minutes in the future. Returns the outbox id of the last event from before.
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
    // The crash may have lost the last renewal, which need not be on disk at once: a matter of seconds.
    let held: bool =
        sqlx::query_scalar("SELECT held_until > clock_timestamp() + interval '1 minute' FROM relay_lease")
            .fetch_one(pool)
            .await?;
    ensure!(held, "no relay held the lease when the clock was set back");
    let last = books::newest_event(pool).await?;
    cluster.launch(Service::CreateBuyOrder)?;
    last.context("no event waited when the clock was set back")
}

/// Metrics that were negative while events with a future time waited.
async fn negative_metrics(cluster: &Cluster) -> Vec<String> {
    let began = Instant::now();
    let mut negative = Vec::new();
    while began.elapsed() < MEASURED {
        for service in [
            Service::CreateBuyOrder,
            Service::ReadModelSync,
            Service::FetchBuyOrders,
        ] {
            // A service that is still starting does not answer.
            for metric in negative_lines(
                &metrics::text(cluster, &cluster.url(service))
                    .await
                    .unwrap_or_default(),
            ) {
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

/// The samples with a negative value: no count or time can be negative.
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
