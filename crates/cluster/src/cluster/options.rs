//! What a test may choose.

use std::collections::BTreeMap;

use super::{Cluster, Link};
use crate::servers::Addresses;
use crate::service::Service;

/// The servers of a cluster.
#[derive(Debug, Clone)]
pub enum WhichServers {
    /// Those that all tests of a run share.
    Shared,
    /// Processes of its own, for tests that stop or kill them. Starting them takes seconds.
    Own,
    /// Those of another cluster, which must not end before this one.
    At(Box<Addresses>),
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The services to start; all five by default. They wait for `migration`: without it they never become healthy.
    pub services: Vec<Service>,
    /// Which PostgreSQL and RabbitMQ the cluster is on. By default they are shared, and only databases and virtual host are private.
    pub servers: WhichServers,
    /// Whether own servers are as durable as in production, for benchmarks: what tests do not need costs most of an order.
    pub durable: bool,
    /// Parameters of both PostgreSQL instances, with their values (own servers only).
    pub database_settings: Vec<(String, String)>,
    /// Settings of RabbitMQ, as in `rabbitmq.conf`, with their values (own servers only).
    pub broker_settings: Vec<(String, String)>,
    /// Whether only the end of what services write is kept. Their output is read as a collector would, and not split into lines: for
    /// benchmarks, whose services write gigabytes.
    pub brief_output: bool,
    /// The size of a disk that holds the data of the write model's PostgreSQL and nothing else, for tests that fill it (own servers only).
    /// It is memory, and needs root. 160 MiB is little: the databases of a test and a log of up to 64 MB or so have to fit.
    pub write_model_disk_bytes: Option<u64>,
    /// Whether the databases hold the schemas from the start (by default) or nothing at all.
    pub migrated: bool,
    /// Variables that differ from the defaults, by service.
    pub env: Vec<(Service, String, String)>,
    /// The connections that lead through a proxy, for tests that break them: none by default.
    pub links: Vec<Link>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            services: Service::ALL.to_vec(),
            servers: WhichServers::Shared,
            durable: false,
            database_settings: Vec::new(),
            broker_settings: Vec::new(),
            brief_output: false,
            write_model_disk_bytes: None,
            migrated: true,
            env: Vec::new(),
            links: Vec::new(),
        }
    }
}

impl Options {
    /// Only these services, and `migration`, which they wait for.
    #[must_use]
    pub fn only(services: &[Service]) -> Self {
        let mut services = services.to_vec();
        if !services.contains(&Service::Migration) {
            services.insert(0, Service::Migration);
        }
        Self {
            services,
            ..Self::default()
        }
    }

    /// No services: empty databases and a virtual host.
    #[must_use]
    pub fn servers_only() -> Self {
        Self {
            services: Vec::new(),
            migrated: false,
            ..Self::default()
        }
    }

    /// With own servers, for tests that stop or kill them.
    #[must_use]
    pub fn with_own_servers(mut self) -> Self {
        self.servers = WhichServers::Own;
        self
    }

    /// On the servers of another cluster, as they are, whatever was said of own ones before.
    #[must_use]
    pub fn on_servers_of(mut self, other: &Cluster) -> Self {
        self.servers = WhichServers::At(Box::new(other.addresses().clone()));
        self
    }

    /// With own servers that are as durable as in production: see [`Options::durable`].
    #[must_use]
    pub fn with_durable_servers(mut self) -> Self {
        self.durable = true;
        self.with_own_servers()
    }

    /// With own servers, and a parameter of both PostgreSQL instances.
    #[must_use]
    pub fn with_database_setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.database_settings.push((name.to_owned(), value.into()));
        self.with_own_servers()
    }

    /// With own servers, and a setting of RabbitMQ.
    #[must_use]
    pub fn with_broker_setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.broker_settings.push((name.to_owned(), value.into()));
        self.with_own_servers()
    }

    /// With only the end of the services' output kept: see [`Options::brief_output`].
    #[must_use]
    pub fn with_brief_output(mut self) -> Self {
        self.brief_output = true;
        self
    }

    /// With own servers, and a disk of this size for the write model: see [`Options::write_model_disk_bytes`].
    #[must_use]
    pub fn with_write_model_disk(mut self, bytes: u64) -> Self {
        self.write_model_disk_bytes = Some(bytes);
        self.with_own_servers()
    }

    /// With proxies for these connections.
    #[must_use]
    pub fn with_links(mut self, links: &[Link]) -> Self {
        self.links.extend(links);
        self
    }

    /// With a variable of a service.
    #[must_use]
    pub fn with_env(mut self, service: Service, name: &str, value: impl Into<String>) -> Self {
        self.env.push((service, name.to_owned(), value.into()));
        self
    }
}

/// The environment contract with the values that are the same in every test.
pub(crate) fn default_contract() -> BTreeMap<String, String> {
    [
        ("SERVICE_HOST", "127.0.0.1"),
        ("RUST_LOG", "info"),
        ("LOGGING_HOST", ""),
        ("WRITE_MODEL_DB_RETRY_WAIT_S", "1"),
        ("READ_MODEL_DB_RETRY_WAIT_S", "1"),
        ("Q_EXCHANGE", "pydist"),
        ("Q_CLIENT_CONNECT_RETRY_S", "1"),
        ("MIGRATION_PROTOCOL", "http"),
        ("MIGRATION_HOST", "127.0.0.1"),
        ("BTC_PRICE_PROTOCOL", "http"),
        ("BTC_PRICE_HOST", "127.0.0.1"),
        ("CB_PROTOCOL", "http"),
        ("CB_HOST", "127.0.0.1"),
        ("CB_PATH", "/v2/prices"),
        ("QUOTE_MAX_AGE_S", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}
