//! The cluster as a library for tests and as a program, against the real binaries and servers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod authentication;
mod behind_a_prefix;
mod broker_faults;
mod broker_users;
mod browser;
mod configuration;
mod credentials;
mod database_faults;
mod disk_faults;
mod document_links;
mod documents;
mod entry;
mod events;
#[path = "../../../fluent_logger/tests/forward_server/server.rs"]
mod forward_server;
mod harness;
mod ipv6;
mod log_server;
mod metrics;
mod native;
mod native_parts;
mod one_order;
mod openapi;
mod otlp_receiver;
mod own_orders;
mod pgbouncer;
mod price_simulator;
mod processes;
mod proxy;
mod readiness;
mod request_ids;
mod rotation;
mod servers;
mod settings;
mod support;
mod terminal;
mod tls;
mod traces;
mod upgrades;
