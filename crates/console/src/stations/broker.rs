//! How the broker does, by the connections that the services have to it.

use super::{Depths, Station, StationState};
use crate::exposition::Exposition;
use crate::help;
use crate::peers::Replica;
use crate::per_service::PerService;

/// The queue is well if every connection that there should be is up.
pub(super) fn queue(read: &PerService<Vec<Replica>>, depths: &Depths) -> Station {
    let mut station = Station::new("queue");
    station.add_figure("ready", depths.queue, "");
    station.add_figure("dead letters", depths.dead_letters, "");
    let services = [
        ("create_buy_order", &read.create_buy_order),
        ("read_model_sync", &read.read_model_sync),
        ("migration", &read.migration),
    ];
    let mut connected = Vec::new();
    for (service, replicas) in services {
        for metrics in super::metrics(replicas) {
            let is_any = |name| is_any(metrics, name, 1.0);
            if metrics.samples("broker_connected").next().is_some() {
                connected.push((service, !self::is_any(metrics, "broker_connected", 0.0)));
            }
            if is_any("broker_blocked") {
                let text = format!("the broker blocks {service}: its memory or disk is low");
                station.add_problem(text, help::BROKER_BLOCKED);
            }
            if is_any("broker_declared_otherwise") {
                let text = "an exchange or a queue of our name exists with other options";
                station.add_problem(text, help::DECLARED_OTHERWISE);
            }
        }
    }
    if connected.is_empty() {
        return station.unknown("no service that needs it answers");
    }
    if connected.iter().all(|(_, is_up)| !is_up) {
        station.add_problem("no service is connected to the broker", help::BROKER_AWAY);
        station.state = StationState::Away;
        return station;
    }
    for (service, is_up) in connected {
        if !is_up {
            let text = format!("{service} is not connected to the broker");
            station.add_problem(text, help::BROKER_AWAY);
        }
    }
    station
}

fn is_any(metrics: &Exposition, name: &str, value: f64) -> bool {
    metrics.samples(name).any(|sample| sample.number() == Some(value))
}
