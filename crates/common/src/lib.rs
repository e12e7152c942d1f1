//! What every service of the cluster shares, and nothing that only one of them needs.
//!
//! The modules are listed from the highest layer to the lowest. A module uses only modules of lower layers, which a test checks.

// Who asks.
pub mod auth;

// How a process starts, waits and stops.
pub mod migrations;
pub mod service;

// How it talks to clients, the broker and the databases.
pub mod broker;
pub mod database;
pub mod http;

// What it reports.
pub mod logging;
pub mod readiness;

pub mod metrics;
pub mod trace;

// How it connects, retries and batches.
mod client_address;
pub mod coalesce;
pub mod net;
mod request_id;
pub mod retry;
pub mod trace_context;

// Where its configuration comes from.
pub mod endpoints;

pub mod env;
mod tls;

mod deployment;

// What travels on the queue, and what the models are compared by.
pub mod buy_order_event;
pub mod range_checksum;

// The types of money and time that both models use, and rows as structs.
mod from_row;
pub mod money;
pub mod timestamp;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod layers;
