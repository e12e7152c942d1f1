//! The local cluster: private PostgreSQL and RabbitMQ servers, the five real binaries with the environment contract of
//! compose, and a simulator of Coinbase's prices. `run.sh` uses it where there is no Docker; every integration test and
//! benchmark stands on it.
//!
//! A test starts one with [`Cluster::start`]:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use cluster::{Cluster, Options, Service};
//! let cluster = Cluster::start(Options::default()).await?;
//! let answer = cluster.http().get(cluster.url(Service::FetchBuyOrders) + "/buy_orders").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything a cluster started is gone when it is dropped, and also when the process that holds it is killed: children
//! carry a parent-death signal, and shared servers end when their standard input does.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: its progress goes to the terminal"
)]

mod account;
mod cluster;
mod databases;
mod docs_page;
mod http_client;
mod log_server;
pub mod native;
pub mod plans;
mod ports;
mod prices;
mod process;
mod proxy;
mod report_page;
mod servers;
mod service;
mod shared;
mod wait;

pub use cluster::{
    Administrator, Cluster, Detour, Diverted, Ended, Link, Options, Peeked, Raw, Server, Starved,
    WhichServers,
};
pub use docs_page::docs_page_needs_no_network;
pub use http_client::http_client;
pub use log_server::LogServer;
pub use ports::Lease as PortLease;
pub use prices::{Behaviour, PriceSimulator, Rates};
pub use process::{Vitals, clock_faker_installed};
pub use proxy::{TcpProxy, Traffic};
pub use report_page::write_report;
pub use servers::{Addresses, BrokerAddress, DatabaseAddress, Servers, postgres_binaries};
pub use service::Service;
pub use shared::SERVERS_VARIABLE;
pub use wait::wait_until;
