//! Family 12: a service whose wall clock is wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Longer than a lease.
const WRONG: Duration = Duration::from_secs(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(12, "clock-ahead", |stage| {
            Box::pin(wrong(stage, "clock an hour ahead", "+1h"))
        })
        .with_replicas(),
        Scenario::new(12, "clock-back", |stage| {
            Box::pin(wrong(stage, "clock an hour back", "-1h"))
        })
        .with_replicas(),
    ]
}

async fn wrong(stage: &mut Stage, kind: &str, offset: &str) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for service in stage.services() {
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
