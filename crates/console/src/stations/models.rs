//! How the databases do, by what those who need them say.

use super::{Station, StationState};
use crate::help;
use crate::peers::{Readiness, Replica};
use crate::per_service::PerService;
use crate::rates::Rates;

pub(super) fn write_model(read: &PerService<Vec<Replica>>, rates: &Rates) -> Station {
    let users = [
        ("create_buy_order", &read.create_buy_order),
        ("migration", &read.migration),
    ];
    let mut station = model("write_model", users, help::WRITE_MODEL);
    let wrote = |quantile| rates.quantile("order_write_duration_seconds_bucket", quantile);
    station.add_figure("write p50", wrote(0.5), "s");
    station.add_figure("write p99", wrote(0.99), "s");
    station
}

pub(super) fn read_model(read: &PerService<Vec<Replica>>) -> Station {
    let users = [
        ("read_model_sync", &read.read_model_sync),
        ("fetch_buy_orders", &read.fetch_buy_orders),
        ("migration", &read.migration),
    ];
    model("read_model", users, help::READ_MODEL)
}

/// It is away if all who need it say so.
fn model<'r>(
    name: &'static str,
    users: impl IntoIterator<Item = (&'static str, &'r Vec<Replica>)>,
    help: &'static str,
) -> Station {
    let mut said = Vec::new();
    for (user, replicas) in users {
        let answers = replicas.iter().filter_map(|replica| replica.answers.as_ref());
        for readiness in answers.map(|answers| &answers.readiness) {
            match readiness {
                Readiness::Ready => said.push((user, None)),
                Readiness::NotReady(faults) => {
                    let is_its = |fault: &&String| fault.split(' ').next() == Some(name);
                    said.push((user, faults.iter().find(is_its)));
                }
                Readiness::Unknown => {}
            }
        }
    }
    let mut station = Station::new(name);
    if said.is_empty() {
        return station.unknown("no service that needs it answers");
    }
    let away = format!("{name} is away");
    if said.iter().all(|(_, fault)| *fault == Some(&away)) {
        station.add_problem(away, help);
        station.state = StationState::Away;
        return station;
    }
    for (user, fault) in said {
        if let Some(fault) = fault {
            station.add_problem(format!("{user} says: {fault}"), help);
        }
    }
    station
}
