//! Families 1 to 3: services that are killed, frozen and restarted.

use std::sync::Arc;
use std::time::Duration;

use cluster::Service;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Longer than any lease, lock or session limit.
const FROZEN: Duration = Duration::from_secs(40);

pub(super) fn scenarios() -> Vec<Scenario> {
    let killed = Scenario::new(1, "killed", |stage| Box::pin(killed(stage)));
    let frozen = Service::OF_ORDERS.map(|service| {
        let name = format!("frozen-{}", service.name());
        Scenario::new(2, name, move |stage| Box::pin(frozen(stage, service))).with_replicas()
    });
    let restarted = Scenario::new(3, "restarted", |stage| Box::pin(restarted(stage)))
        .with_replicas()
        .strict();
    [killed].into_iter().chain(frozen).chain([restarted]).collect()
}

async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
        let killed = async {
            cluster.kill(service).await?;
            cluster.launch(service)
        };
        stage.fault("`kill -9`, restart", service.name(), killed).await?;
    }
    for service in stage.services() {
        let between = Duration::from_millis(stage.random.u64(0..300));
        let killed_twice = async {
            cluster.kill(service).await?;
            cluster.launch(service)?;
            Stage::last(between).await;
            cluster.kill(service).await?;
            cluster.launch(service)
        };
        stage
            .fault("`kill -9` twice in a row", service.name(), killed_twice)
            .await?;
    }
    let all = stage.services();
    let killed_at_once = async {
        for service in &all {
            cluster.kill(*service).await?;
        }
        for service in &all {
            cluster.launch(*service)?;
        }
        Ok(())
    };
    stage.fault("`kill -9` of all at once", "", killed_at_once).await
}

/// The other process of the service, if there is one, takes over the work of the frozen one.
async fn frozen(stage: &mut Stage, service: Service) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let frozen = async {
        cluster.pause(service)?;
        Stage::last(FROZEN).await;
        cluster.resume(service)
    };
    stage
        .fault("SIGSTOP for 40 s, SIGCONT", service.name(), frozen)
        .await
}

async fn restarted(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
        let restarted = async {
            cluster.stop(service).await?;
            cluster.start_service(service).await?;
            for extra in cluster.extras(service) {
                cluster.stop(&extra).await?;
                cluster.start_service(&extra).await?;
            }
            Ok(())
        };
        stage
            .fault("SIGTERM, rolling restart", service.name(), restarted)
            .await?;
    }
    Ok(())
}
