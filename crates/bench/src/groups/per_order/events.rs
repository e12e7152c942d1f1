//! Orders a second while every event also goes to a Fluentd, beside those without one.

use std::time::Duration;

use cluster::{Cluster, LogServer, Service};

use super::{NAME, newest, orders_since, place_orders};
use crate::bench::{Bench, quiet};
use crate::figures::figure;
use crate::groups::CONNECTIONS;

/// Those that an order passes.
const SERVICES: [Service; 3] = [Service::BtcPrice, Service::CreateBuyOrder, Service::ReadModelSync];

/// Events that come later than this after the one before are of something else.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_QUICK: Duration = Duration::from_millis(500);

pub(super) async fn measure(bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<()> {
    // By turns, so that what else the machine does falls on both.
    let (rounds, silence): (u32, Duration) = if bench.quick {
        (1, SILENCE_QUICK)
    } else {
        (3, SILENCE)
    };
    let (mut without, mut with, mut events, mut orders) = (0.0, 0.0, 0.0, 0.0);
    restart(cluster, None).await?;
    for _ in 0..rounds {
        without += orders_per_second(bench, cluster, "without Fluentd").await?;

        let fluentd = LogServer::start()?;
        restart(cluster, Some(&fluentd)).await?;
        let from = newest(cluster).await?;
        let events_before = silent(&fluentd, silence).await?;
        with += orders_per_second(bench, cluster, "with Fluentd").await?;
        events += figure(silent(&fluentd, silence).await? - events_before);
        orders += orders_since(cluster, from).await?;
        // While it is there: with what they cannot deliver, services take longer to stop.
        restart(cluster, None).await?;
    }
    let rounds = f64::from(rounds);
    let name = format!("{CONNECTIONS} connections, with Fluentd");
    let rate = (with / rounds, "/s");
    let figures = &mut bench.figures;
    figures.add_against(NAME, name, rate, ("without", without / rounds));
    figures.add(NAME, "events that Fluentd got", events / orders, "");
    Ok(())
}

async fn orders_per_second(bench: &mut Bench, cluster: &Cluster, what: &str) -> anyhow::Result<f64> {
    let duration = bench.duration();
    place_orders(bench, cluster, what, duration).await
}

/// Has the services of an order tell this server of their events, or none.
async fn restart(cluster: &Cluster, fluentd: Option<&LogServer>) -> anyhow::Result<()> {
    let host = fluentd.map_or("", |_| "127.0.0.1");
    let port = fluentd.map_or_else(String::new, |fluentd| fluentd.port().to_string());
    for service in SERVICES {
        cluster.set_env(service, "LOGGING_HOST", host);
        cluster.set_env(service, "LOGGING_PORT", &port);
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
    }
    quiet(cluster).await
}

/// How many events have come when no more do.
async fn silent(fluentd: &LogServer, silence: Duration) -> anyhow::Result<u64> {
    let mut before = fluentd.events();
    loop {
        tokio::time::sleep(silence).await;
        let events = fluentd.events();
        if events == before {
            return Ok(u64::try_from(events)?);
        }
        before = events;
    }
}
