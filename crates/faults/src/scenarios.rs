//! The scenarios, by family of faults.

mod administrators;
mod broker;
mod clients;
mod clock;
mod database_clock;
mod disk;
mod half_sent;
mod large_messages;
mod log;
mod messages;
mod migrations;
mod network;
mod policies;
mod postgres;
mod prices;
mod processes;
mod relays;
mod room;
mod starved;
mod voids;

use crate::scenario::Scenario;

/// Every scenario, in the order of the report.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        processes::scenarios(),
        relays::scenarios(),
        broker::scenarios(),
        policies::scenarios(),
        postgres::scenarios(),
        administrators::scenarios(),
        network::scenarios(),
        clients::scenarios(),
        messages::scenarios(),
        large_messages::scenarios(),
        prices::scenarios(),
        log::scenarios(),
        disk::scenarios(),
        clock::scenarios(),
        database_clock::scenarios(),
        migrations::scenarios(),
        starved::scenarios(),
        room::scenarios(),
        voids::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
