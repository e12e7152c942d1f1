//! 12: a service whose wall clock is wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Longer than a lease.
const WRONG: Duration = Duration::from_secs(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(12, "clock", |stage| Box::pin(wrong(stage))).with_replicas()]
}

async fn wrong(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
        let (kind, offset) = if stage.random.bool() {
            ("clock an hour ahead", "+1h")
        } else {
            ("clock an hour back", "-1h")
        };
        let wrong = async {
            cluster.set_clock(service, offset)?;
            cluster.stop(service).await?;
            cluster.start_service(service).await?;
            Stage::last(WRONG).await;
            cluster.reset_clock(service);
            cluster.stop(service).await?;
            cluster.start_service(service).await
        };
        stage.fault(kind, service.name(), wrong).await?;
    }
    Ok(())
}
