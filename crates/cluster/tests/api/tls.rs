//! TLS between the parts: the broker, the databases and the services of HTTP, each with certificates that are right, wrong and renewed.

mod broker;
mod certificates;
mod databases;
mod everything;
mod peers;
mod server;

use std::time::Duration;

use cluster::{Cluster, Service, wait_until};
use serde_json::Value;

/// Generous: a supervisor pauses for up to 8 s between two attempts.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a service has logged this event with this text in it, after the first `seen` lines of its log.
async fn waits_with(
    cluster: &Cluster,
    service: Service,
    seen: usize,
    event: &str,
    text: &str,
) -> anyhow::Result<()> {
    let what = format!("{service:?} logs {event} with {text:?}");
    wait_until(&what, LIMIT, async || {
        let logs = cluster.logs(service);
        let new = logs.get(seen..).unwrap_or_default();
        let found = |line: &Value| line["event"] == event && line.to_string().contains(text);
        anyhow::ensure!(new.iter().any(found), "its last line: {:?}", new.last());
        Ok(true)
    })
    .await
}

/// The number of lines in the log of a service, so far.
fn seen(cluster: &Cluster, service: Service) -> usize {
    cluster.logs(service).len()
}

/// No service was started twice.
fn assert_no_restart(cluster: &Cluster) {
    for service in Service::OF_ORDERS {
        let logs = cluster.logs(service);
        let starts = logs.iter().filter(|line| line["event"] == "service_started");
        assert!(starts.count() <= 1, "{service:?} was restarted");
    }
}
