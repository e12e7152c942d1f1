//! The local cluster: private PostgreSQL and RabbitMQ servers, the five real binaries with the environment contract of
//! compose, and a simulator of Coinbase's prices. `run.sh` uses it where there is no Docker, and every integration test
//! and benchmark uses it.
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
//! Everything that a cluster started ends when it is dropped, and also when the process that holds it is killed: children
//! have a parent-death signal, and shared servers end when their standard input closes.
//!
//! # Layers
//! A module uses only modules of its own layer and of the layers above it in this list; there are no cycles.
//!
//! 1. `account`, `address`, `background_server`, `http_client`, `ports`, `process`, `service`, `wait`: processes, ports, addresses, names.
//! 2. `docs_page`, `event_contract`, [`issuer`], `log_server`, `order`, `plans`, `prices`, `proxy`, `report_page`, `sessions`: tools of tests, each usable alone.
//! 3. `servers`, `shared`: PostgreSQL and RabbitMQ.
//! 4. `databases`, `links`, `options`, `replica`: what a cluster consists of, on these servers.
//! 5. `cluster`: a cluster for tests. Its submodules each add one kind of operation to [`Cluster`].
//! 6. [`native`]: the cluster as a program.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: its progress goes to the terminal"
)]

mod account;
mod address;
mod background_server;
mod http_client;
mod ports;
mod process;
mod service;
mod wait;

mod docs_page;
mod event_contract;
pub mod issuer;
mod log_server;
mod order;
pub mod plans;
mod prices;
mod proxy;
mod report_page;
mod sessions;

mod servers;
mod shared;

mod databases;
mod links;
mod options;
mod replica;

mod cluster;

pub mod native;

pub use address::{Addresses, BrokerAddress, DatabaseAddress, Owner};
pub use cluster::admin::Ended;
pub use cluster::administrator::Administrator;
pub use cluster::detour::{Detour, Diverted};
pub use cluster::messages::{Peeked, Raw};
pub use cluster::processes::Starved;
pub use cluster::server_control::Server;
pub use cluster::{Cluster, Issuer, ProcessId};
pub use docs_page::docs_page_needs_no_network;
pub use event_contract::check_event;
pub use http_client::{bearer, http_client, http_client_with, https_client_with, trusted};
pub use links::Link;
pub use log_server::LogServer;
pub use options::{Options, ServerChoice};
pub use order::{new_order, order_with_key};
pub use ports::Lease as PortLease;
pub use prices::{Behaviour, PriceSimulator, Rates};
pub use process::{Vitals, clock_faker_installed};
pub use proxy::{TcpProxy, Traffic};
pub use report_page::write_report;
pub use servers::{ServerSettings, Servers, create_owner, postgres_binaries};
pub use service::Service;
pub use sessions::{blocked_sessions, end_sessions, lock_running_total};
pub use shared::SERVERS_VARIABLE;
pub use wait::wait_until;
