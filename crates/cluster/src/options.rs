//! What a test may choose when it starts a cluster.

use crate::address::Addresses;
use crate::links::Link;
use crate::servers::ServerSettings;
use crate::service::Service;

/// Which servers a cluster uses.
#[derive(Debug, Clone)]
pub enum ServerChoice {
    /// The servers that all tests of a run share.
    Shared,
    /// Servers of its own, for tests that stop or kill them. Starting them takes seconds.
    Own(ServerSettings),
    /// The servers of another cluster, which must outlive this one.
    At(Box<Addresses>),
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The services to start: by default those that handle orders. They wait for `migration`, and never become healthy without it.
    pub services: Vec<Service>,
    /// Which PostgreSQL and RabbitMQ servers to use: by default the shared ones, with private databases and a private virtual host.
    pub servers: ServerChoice,
    /// Whether only the end of the services' output is kept, and not split into lines. For benchmarks, whose services write gigabytes.
    pub brief_output: bool,
    /// Whether the databases have the schemas from the start (the default) or are empty.
    pub migrated: bool,
    /// Whether clients are told apart by tokens (`AUTH_MODE=jwt`): by default they are not.
    pub tokens: bool,
    /// Environment variables that differ from the defaults: service, name, value.
    pub env: Vec<(Service, String, String)>,
    /// The connections that go through a proxy, for tests that break them: by default none.
    pub links: Vec<Link>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            services: Service::OF_ORDERS.to_vec(),
            servers: ServerChoice::Shared,
            brief_output: false,
            migrated: true,
            tokens: false,
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

    /// Uses servers of its own, for tests that stop or kill them.
    #[must_use]
    pub fn with_own_servers(self) -> Self {
        self.with_server_settings(|_| {})
    }

    /// Uses the servers at these addresses instead of its own. Their settings do not change.
    #[must_use]
    pub fn on_servers_at(mut self, addresses: &Addresses) -> Self {
        self.servers = ServerChoice::At(Box::new(addresses.clone()));
        self
    }

    /// Uses servers of its own that are as durable as in production: see [`ServerSettings::durable`].
    #[must_use]
    pub fn with_durable_servers(self) -> Self {
        self.with_server_settings(|settings| settings.durable = true)
    }

    /// Uses servers of its own, with this parameter of both PostgreSQL instances.
    #[must_use]
    pub fn with_database_setting(self, name: &str, value: impl Into<String>) -> Self {
        self.with_server_settings(|settings| settings.database.push((name.to_owned(), value.into())))
    }

    /// Uses servers of its own, with this setting of RabbitMQ.
    #[must_use]
    pub fn with_broker_setting(self, name: &str, value: impl Into<String>) -> Self {
        self.with_server_settings(|settings| settings.broker.push((name.to_owned(), value.into())))
    }

    /// Uses servers of its own, whose RabbitMQ has the plugin rabbitmq_prometheus, on this port.
    #[must_use]
    pub fn with_broker_metrics(self, port: u16) -> Self {
        self.with_broker_setting("prometheus.tcp.ip", "127.0.0.1")
            .with_broker_setting("prometheus.tcp.port", port.to_string())
    }

    /// Keeps only the end of the services' output: see [`Options::brief_output`].
    #[must_use]
    pub fn with_brief_output(mut self) -> Self {
        self.brief_output = true;
        self
    }

    /// Uses servers of its own, with a disk of this size for the write model: see [`ServerSettings::write_model_disk_bytes`].
    #[must_use]
    pub fn with_write_model_disk(self, bytes: u64) -> Self {
        self.with_server_settings(|settings| settings.write_model_disk_bytes = Some(bytes))
    }

    /// Puts proxies in front of these connections.
    #[must_use]
    pub fn with_links(mut self, links: &[Link]) -> Self {
        self.links.extend(links);
        self
    }

    /// Starts an issuer, and services that demand its tokens. [`Cluster::http`](crate::Cluster::http) sends one of client 1 with each request.
    #[must_use]
    pub fn with_tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// Sets an environment variable of a service.
    #[must_use]
    pub fn with_env(mut self, service: Service, name: &str, value: impl Into<String>) -> Self {
        self.env.push((service, name.to_owned(), value.into()));
        self
    }

    fn with_server_settings(mut self, change: impl FnOnce(&mut ServerSettings)) -> Self {
        let mut settings = match self.servers {
            ServerChoice::Own(settings) => settings,
            ServerChoice::Shared | ServerChoice::At(_) => ServerSettings::default(),
        };
        change(&mut settings);
        self.servers = ServerChoice::Own(settings);
        self
    }
}
