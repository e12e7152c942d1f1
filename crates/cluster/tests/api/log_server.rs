//! `LogServer` with the events of a real service.

use std::time::Duration;

use cluster::{Cluster, LogServer, Options, Service, Traffic, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
const SERVICE: Service = Service::BtcPrice;

#[tokio::test]
async fn it_acknowledges_events_and_catches_up_after_its_absence_or_silence() -> anyhow::Result<()> {
    let server = LogServer::start()?;
    let options = Options::only(&[SERVICE])
        .with_env(SERVICE, "LOGGING_HOST", "127.0.0.1")
        .with_env(SERVICE, "LOGGING_PORT", server.port().to_string())
        .with_env(SERVICE, "LOGGING_RETRY_S", "1");
    let cluster = Cluster::start(options).await?;
    let arrive = async |more_than: usize| {
        wait_until("events arrive", LIMIT, async || Ok(server.events() > more_than)).await
    };
    arrive(0).await?;
    for traffic in [Traffic::Refuse, Traffic::DropToServer] {
        let url = cluster.url(SERVICE) + "/buy?currency=USD";
        server.set(traffic.clone());
        let (before, failures_before) = (server.events(), failures(&cluster));
        for _ in 0..5 {
            cluster.http().get(&url).send().await?.error_for_status()?;
        }
        wait_until("the service gives up an attempt", LIMIT, async || {
            Ok(failures(&cluster) > failures_before)
        })
        .await?;
        assert_eq!(server.events(), before, "{traffic:?}");
        server.set(Traffic::Pass);
        arrive(before).await?;
    }
    Ok(())
}

/// How often the service could not deliver its events.
fn failures(cluster: &Cluster) -> usize {
    let lines = cluster.logs(SERVICE);
    let failed = |line: &&serde_json::Value| line["event"] == "failed_to_connect_to_logging";
    lines.iter().filter(failed).count()
}
