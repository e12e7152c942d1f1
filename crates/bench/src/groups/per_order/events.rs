//! Orders per second while every event also goes to Fluentd, compared with those without.

use std::time::Duration;

use cluster::{Cluster, LogServer, Service};

use crate::bench::{Bench, CONNECTIONS};
use crate::commits;
use crate::figures::figure;
use crate::wrk::{Ask, Load};

/// The services that an order passes through.
const SERVICES: [Service; 3] = [Service::BtcPrice, Service::CreateBuyOrder, Service::ReadModelSync];

/// After this time without an event no more events of the load are expected.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_QUICK: Duration = Duration::from_millis(500);

pub(super) async fn measure(bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<()> {
    // In turns, so that other load on the machine affects both.
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
        let from = commits::newest(cluster).await?;
        let events_before = wait_for_silence(&fluentd, silence).await?;
        with += orders_per_second(bench, cluster, "with Fluentd").await?;
        events += figure(wait_for_silence(&fluentd, silence).await? - events_before);
        orders += figure(commits::orders_since(cluster, from).await?);
        // While Fluentd still runs: services with undelivered events take longer to stop.
        restart(cluster, None).await?;
    }
    let rounds = f64::from(rounds);
    let name = format!("{CONNECTIONS} connections, with Fluentd");
    let rate = (with / rounds, "/s");
    let figures = &mut bench.figures;
    figures.add_against(name, rate, ("without", without / rounds));
    figures.add("events that Fluentd got", events / orders, "");
    Ok(())
}

async fn orders_per_second(bench: &mut Bench, cluster: &Cluster, what: &str) -> anyhow::Result<f64> {
    let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, bench.duration());
    let name = format!("per_order, {what}");
    Ok(bench.place_orders(cluster, &name, load).await?.per_second())
}

/// Restarts the services of an order so that they send their events to this server, or to none.
async fn restart(cluster: &Cluster, fluentd: Option<&LogServer>) -> anyhow::Result<()> {
    let host = fluentd.map_or("", |_| "127.0.0.1");
    let port = fluentd.map_or_else(String::new, |fluentd| fluentd.port().to_string());
    for service in SERVICES {
        cluster.set_env(service, "LOGGING_HOST", host);
        cluster.set_env(service, "LOGGING_PORT", &port);
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
    }
    commits::wait_until_projected(cluster).await
}

/// Waits until no more events come. Returns their number.
async fn wait_for_silence(fluentd: &LogServer, silence: Duration) -> anyhow::Result<u64> {
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
