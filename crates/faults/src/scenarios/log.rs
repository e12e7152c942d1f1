//! Families 10 and 6: Fluentd and the network to it. Whatever happens to it, orders are accepted, and nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, LogServer, Service, Traffic, wait_until};

use super::network;
use crate::scenario::Scenario;
use crate::stage::{RECOVERY_LIMIT, Stage};

const AWAY: Duration = Duration::from_secs(5);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(10, "fluentd", |stage| Box::pin(disturbed(stage))),
        Scenario::new(6, "network-to_fluentd", |stage| {
            Box::pin(network_disturbed(stage))
        }),
    ]
}

/// The services are restarted with the address of a Fluentd that does not answer yet.
async fn disturbed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let log = LogServer::start()?;
    log.set(Traffic::Refuse);
    let away_from_the_start = async {
        log_to(&cluster, &log).await?;
        Stage::last(AWAY).await;
        Ok(())
    };
    stage
        .fault("Fluentd: away from the start", "", away_from_the_start)
        .await?;
    stage
        .harmless_fault("Fluentd: comes late", "", wait_for_events(&log))
        .await?;
    for (kind, traffic) in [
        ("Fluentd: dies", Traffic::Refuse),
        ("Fluentd: accepts and never reads", Traffic::DropToServer),
    ] {
        let disturbed = disturb(&log, traffic, AWAY);
        stage.harmless_fault(kind, "", disturbed).await?;
    }
    Ok(())
}

async fn network_disturbed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let log = LogServer::start()?;
    stage
        .fault(
            "Fluentd: set up, all services restarted",
            "",
            log_to(&cluster, &log),
        )
        .await?;
    for (kind, traffic, duration) in network::disturbances(&mut stage.random) {
        let disturbed = disturb(&log, traffic, duration);
        stage.harmless_fault(kind, "to_fluentd", disturbed).await?;
    }
    let shared = Arc::clone(&stage.shared);
    let mut random = stage.random.fork();
    let silenced = async {
        network::silence_in_use(&shared, &mut random, log.proxy()).await?;
        let before = log.events();
        wait_until("Fluentd gets events", RECOVERY_LIMIT, async || {
            Ok(log.events() > before)
        })
        .await
    };
    stage
        .harmless_fault(network::SILENCED, "to_fluentd", silenced)
        .await
}

/// Restarts the services with this log server.
async fn log_to(cluster: &Cluster, log: &LogServer) -> anyhow::Result<()> {
    for service in Service::OF_ORDERS {
        cluster.set_env(service, "LOGGING_HOST", "127.0.0.1");
        cluster.set_env(service, "LOGGING_PORT", &log.port().to_string());
        cluster.set_env(service, "LOGGING_RETRY_S", "1");
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
    }
    Ok(())
}

async fn disturb(log: &LogServer, traffic: Traffic, duration: Duration) -> anyhow::Result<()> {
    log.set(traffic);
    Stage::last(duration).await;
    wait_for_events(log).await
}

/// Lets traffic pass, and waits until events arrive.
async fn wait_for_events(log: &LogServer) -> anyhow::Result<()> {
    let before = log.events();
    log.set(Traffic::Pass);
    wait_until("Fluentd gets events", Duration::from_secs(30), async || {
        Ok(log.events() > before)
    })
    .await
}
