//! The faults, by family.

mod broker;
mod clients;
mod clock;
mod disk;
mod log;
mod messages;
mod migrations;
mod network;
mod postgres;
mod prices;
mod processes;
mod starved;

use crate::scenario::Scenario;

/// Every scenario, in the order of the report.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        processes::scenarios(),
        broker::scenarios(),
        postgres::scenarios(),
        network::scenarios(),
        clients::scenarios(),
        messages::scenarios(),
        prices::scenarios(),
        log::scenarios(),
        disk::scenarios(),
        clock::scenarios(),
        migrations::scenarios(),
        starved::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
