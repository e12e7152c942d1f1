//! Family 14: services with too little CPU time or too few file descriptors.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Percentage of the time in which a service is stopped: 5 % of a core is left.
const STOPPED_PERCENT: u8 = 95;
const STARVED: Duration = Duration::from_secs(10);
const OPEN_FILES: u64 = 64;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(14, "starved", |stage| Box::pin(starved(stage))),
        Scenario::new(14, "few-files", |stage| Box::pin(few_files(stage))),
    ]
}

async fn starved(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
        let starved = async {
            let starved = cluster.starve(service, STOPPED_PERCENT)?;
            Stage::last(STARVED).await;
            drop(starved);
            Ok(())
        };
        stage.fault("5 % of a core", service.name(), starved).await?;
    }
    Ok(())
}

/// Idle connections use up the remaining file descriptors.
async fn few_files(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
        let address = cluster.url(service).trim_start_matches("http://").to_owned();
        let limited = async {
            cluster.limit_open_files(service, OPEN_FILES)?;
            let clients = join_all((0..100).map(|_| TcpStream::connect(&address))).await;
            Stage::last(STARVED).await;
            drop(clients);
            // The limit applies to this process; the next one has the default.
            cluster.stop(service).await?;
            cluster.start_service(service).await
        };
        stage
            .fault("64 file descriptors", service.name(), limited)
            .await?;
    }
    Ok(())
}
