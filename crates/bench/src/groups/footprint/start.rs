//! The time from the start of a process until it is healthy, while the databases and the other services run.

use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{Cluster, Service};

use crate::bench::Bench;

/// Odd, so that the median is one of them.
const STARTS: usize = 7;
const STARTS_QUICK: usize = 1;
/// How often to ask: the precision of the figure.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let starts = if bench.quick { STARTS_QUICK } else { STARTS };
    let mut slowest: f64 = 0.0;
    for service in Service::OF_ORDERS {
        let mut took_ms = Vec::new();
        for _ in 0..starts {
            took_ms.push(start(&cluster, service).await?);
        }
        took_ms.sort_by(f64::total_cmp);
        let median = took_ms.get(starts / 2).copied().unwrap_or_default();
        let worst = took_ms.last().copied().unwrap_or_default();
        let name = format!("start to healthy, {}", service.name());
        bench
            .figures
            .add(format!("{name}, median of {starts}"), median, "ms");
        bench.figures.add(format!("{name}, worst"), worst, "ms");
        slowest = slowest.max(worst);
    }
    bench
        .figures
        .add("start to healthy, slowest of all", slowest, "ms");
    Ok(())
}

/// Returns the time in ms.
async fn start(cluster: &Cluster, service: Service) -> anyhow::Result<f64> {
    cluster.stop(service).await?;
    let (http, url) = (cluster.http(), cluster.url(service) + "/healthcheck");
    let began = Instant::now();
    cluster.launch(service)?;
    loop {
        // The connection is refused until it listens.
        let answered = http.get(&url).send().await;
        let took = began.elapsed();
        if answered.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(took.as_secs_f64() * 1000.0);
        }
        ensure!(took < LIMIT, "{} is not healthy within {LIMIT:?}", service.name());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
