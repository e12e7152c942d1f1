//! How servers are set up.

use std::time::Duration;

/// How long a server may take to answer. Generous: the machine may be busy with other tests.
pub(super) const START_LIMIT: Duration = Duration::from_secs(120);

/// Whether data must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production.
    Full,
    /// As in production while the server runs, for benchmarks. The data is deleted at the end, so the server is not shut down in order.
    WhileItRuns,
    /// For tests: the data is deleted at the end.
    None,
}

/// How one server is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) durability: Durability,
    /// Names and values of parameters. They override the defaults.
    pub(crate) settings: &'a [(String, String)],
}

/// Settings of a set of servers.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    /// Whether the servers are as durable as in production. Needed for benchmarks, as durability is most of the cost of an order.
    pub durable: bool,
    /// Names and values of parameters of both PostgreSQL instances.
    pub database: Vec<(String, String)>,
    /// Names and values of settings of RabbitMQ, as in `rabbitmq.conf`.
    pub broker: Vec<(String, String)>,
    /// The size of a disk of its own for the write model's PostgreSQL, for tests that fill it. The disk is in memory, and mounting it needs
    /// root. The databases of a test and up to about 64 MB of WAL must fit: 160 MiB is close to the minimum.
    pub write_model_disk_bytes: Option<u64>,
}
