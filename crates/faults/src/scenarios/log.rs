//! 10: Fluentd. Whatever happens to it, orders are accepted, and nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use cluster::{LogServer, LogServerBehaviour, Service};

use crate::scenario::Scenario;
use crate::stage::Stage;

const AWAY: Duration = Duration::from_secs(5);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(10, "fluentd", |stage| Box::pin(disturbed(stage)))]
}

/// It is away from the start of the services: they are restarted with its address before it answers.
async fn disturbed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let log = LogServer::start()?;
    log.set(LogServerBehaviour::Away);
    for service in Service::ALL {
        cluster.set_env(service, "LOGGING_HOST", "127.0.0.1");
        cluster.set_env(service, "LOGGING_PORT", &log.port().to_string());
        cluster.set_env(service, "LOGGING_RETRY_S", "1");
    }
    let away_from_the_start = async {
        for service in Service::ALL {
            cluster.stop(service).await?;
            cluster.start_service(service).await?;
        }
        Stage::last(AWAY).await;
        Ok(())
    };
    stage
        .fault("Fluentd: away from the start", "", away_from_the_start)
        .await?;
    let arrived = async {
        log.set(LogServerBehaviour::Reads);
        cluster::wait_until("Fluentd gets events", Duration::from_secs(30), async || {
            Ok(log.events() > 0)
        })
        .await
    };
    stage.harmless_fault("Fluentd: comes late", "", arrived).await?;
    for (kind, behaviour) in [
        ("Fluentd: dies", LogServerBehaviour::Away),
        ("Fluentd: accepts and never reads", LogServerBehaviour::NeverReads),
    ] {
        let disturbed = async {
            log.set(behaviour);
            Stage::last(AWAY).await;
            log.set(LogServerBehaviour::Reads);
            Ok(())
        };
        stage.harmless_fault(kind, "", disturbed).await?;
    }
    Ok(())
}
