//! A running cluster for tests: private databases, a private virtual host, a price simulator and real service processes.

pub(crate) mod admin;
pub(crate) mod administrator;
mod broker_control;
pub(crate) mod detour;
mod disk;
pub(crate) mod messages;
mod policies;
pub(crate) mod processes;
pub(crate) mod server_control;

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::HeaderMap;
use rustix::process::Signal;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::address::{Addresses, BrokerAddress, DatabaseAddress};
use crate::databases::Namespace;
use crate::http_client::{bearer, http_client_with};
use crate::issuer::{self, ALL_SCOPES, KeysServer, SigningKey};
use crate::links::{self, Link, Links};
use crate::options::{Options, ServerChoice};
use crate::ports::Lease;
use crate::prices::PriceSimulator;
use crate::process::{Output, locked};
use crate::proxy::TcpProxy;
use crate::replica::Replica;
use crate::servers::Servers;
use crate::service::{Service, default_contract};
use crate::shared;

/// The issuer of a cluster whose services demand tokens.
#[derive(Debug)]
pub struct Issuer {
    /// Signs tokens.
    pub key: SigningKey,
    /// Where the services find the key.
    pub keys_server: KeysServer,
}

impl Issuer {
    fn start() -> anyhow::Result<Self> {
        let key = SigningKey::es256()?;
        let keys_server = KeysServer::start([&key])?;
        Ok(Self { key, keys_server })
    }

    /// A token of client 1 with both scopes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn token(&self) -> anyhow::Result<String> {
        // Valid for longer than any suite takes.
        self.key.sign(&issuer::claims(1, ALL_SCOPES, 24 * 3600)?)
    }
}

/// Identifies a process of a service.
#[derive(Debug, Clone, Copy)]
pub enum ProcessId<'a> {
    /// The first process of a service.
    Service(Service),
    /// The process at this URL, which may be an extra one.
    Url(&'a str),
}

impl From<Service> for ProcessId<'_> {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl<'a> From<&'a String> for ProcessId<'a> {
    fn from(url: &'a String) -> Self {
        Self::Url(url)
    }
}

/// A cluster of one test. Dropping it kills its services and removes its databases and virtual host.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: services, then what they use, then the servers.
    services: Mutex<BTreeMap<Service, Arc<Replica>>>,
    extras: Mutex<Vec<Arc<Replica>>>,
    links: Links,
    prices: PriceSimulator,
    issuer: Option<Issuer>,
    authorization: HeaderMap,
    write_model: PgPool,
    read_model: PgPool,
    namespace: Namespace,
    own_servers: Option<Servers>,
    http: reqwest::Client,
    contract: BTreeMap<String, String>,
    overrides: Mutex<Vec<(Service, String, String)>>,
    clocks: Mutex<BTreeMap<Service, BTreeMap<String, String>>>,
    brief_output: bool,
}

impl Cluster {
    /// Starts a cluster. On return every service of `options` answers `/healthcheck`.
    ///
    /// # Errors
    /// When a binary is missing or a service does not become healthy. The message contains the last lines of its output.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (servers, own_servers) = match &options.servers {
            ServerChoice::Shared => (shared::addresses().await?, None),
            ServerChoice::At(addresses) => (Addresses::clone(addresses), None),
            ServerChoice::Own(settings) => {
                let own = Servers::start(settings).await?;
                (own.addresses(), Some(own))
            }
        };
        let namespace = Namespace::create(&servers, options.migrated).await?;
        let prices = PriceSimulator::start()?;
        let pool = |address: &DatabaseAddress| {
            PgPoolOptions::new()
                .max_connections(5)
                .connect_lazy_with(address.options())
        };
        let leases = Service::ALL.iter().map(|service| Ok((*service, Lease::take()?)));
        let leases: BTreeMap<Service, Lease> = leases.collect::<anyhow::Result<_>>()?;
        let mut contract = contract(&namespace.addresses, &leases, prices.port());
        if !options.services.contains(&Service::Console) {
            // The services would send their spans there.
            contract.remove("CONSOLE_PORT");
        }
        let issuer = options.tokens.then(Issuer::start).transpose()?;
        if let Some(Issuer { keys_server, .. }) = &issuer {
            let variables = issuer::variables(&keys_server.url());
            contract.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        }
        let authorization = match &issuer {
            Some(issuer) => bearer(&issuer.token()?)?,
            None => HeaderMap::new(),
        };
        let cluster = Self {
            write_model: pool(&namespace.addresses.write_model),
            read_model: pool(&namespace.addresses.read_model),
            links: links::start(&options.links, &contract)?,
            contract,
            brief_output: options.brief_output,
            services: Mutex::default(),
            extras: Mutex::default(),
            overrides: Mutex::new(options.env),
            clocks: Mutex::default(),
            http: http_client_with(authorization.clone())?,
            prices,
            issuer,
            authorization,
            namespace,
            own_servers,
        };
        for (service, lease) in leases {
            let replica = Arc::new(Replica::new(service, lease, cluster.new_output()));
            locked(&cluster.services).insert(service, replica);
        }
        for service in &options.services {
            cluster.launch(*service)?;
        }
        for service in &options.services {
            cluster
                .replica(*service)?
                .wait_until_healthy(&cluster.http)
                .await?;
        }
        Ok(cluster)
    }

    /// `http://127.0.0.1:PORT` of a service, also while it is stopped.
    #[must_use]
    pub fn url(&self, service: Service) -> String {
        locked(&self.services)
            .get(&service)
            .map(|replica| replica.url())
            .unwrap_or_default()
    }

    /// An HTTP client without a proxy and with a timeout of 30 s. With [`Options::with_tokens`] its requests are client 1's.
    #[must_use]
    pub fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// `PUT /buy_order` with this body, ready to be sent.
    pub fn put_order(&self, order: &serde_json::Value) -> reqwest::RequestBuilder {
        let url = self.url(Service::CreateBuyOrder) + "/buy_order";
        self.http().put(url).json(order)
    }

    /// The price simulator that `btc_price` uses.
    #[must_use]
    pub fn prices(&self) -> &PriceSimulator {
        &self.prices
    }

    /// The header with a token of client 1, if the services demand tokens.
    #[must_use]
    pub fn authorization(&self) -> HeaderMap {
        self.authorization.clone()
    }

    /// The issuer of tokens.
    ///
    /// # Errors
    /// There is none without [`Options::with_tokens`].
    pub fn issuer(&self) -> anyhow::Result<&Issuer> {
        self.issuer
            .as_ref()
            .context("there is no issuer: set Options::with_tokens")
    }

    /// A pool on the private write model.
    #[must_use]
    pub fn write_model(&self) -> &PgPool {
        &self.write_model
    }

    /// A pool on the private read model.
    #[must_use]
    pub fn read_model(&self) -> &PgPool {
        &self.read_model
    }

    /// The broker with the private virtual host.
    #[must_use]
    pub fn queue(&self) -> &BrokerAddress {
        &self.namespace.addresses.broker
    }

    /// The proxy of a link of [`Options::links`].
    ///
    /// # Errors
    /// When the link is not among them.
    pub fn link(&self, link: Link) -> anyhow::Result<&TcpProxy> {
        let proxy = self.links.get(&link);
        proxy.with_context(|| format!("the link {} has no proxy: set Options::links", link.name()))
    }

    /// Addresses of the private databases and virtual host.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.namespace.addresses
    }

    /// The environment of a service, including `SERVICE_PORT`, with the direct addresses of servers instead of those of proxies.
    ///
    /// # Errors
    /// When the service is unknown.
    pub fn environment(&self, service: Service) -> anyhow::Result<BTreeMap<String, String>> {
        let direct = Links::new();
        Ok(self.environment_through(&direct, service, self.replica(service)?.port()))
    }

    /// Sets a variable of a service from its next start on.
    pub fn set_env(&self, service: Service, name: &str, value: &str) {
        locked(&self.overrides).push((service, name.to_owned(), value.to_owned()));
    }

    /// Stops a process by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub async fn stop<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<ExitStatus> {
        self.replica(process)?.process()?.stop().await
    }

    /// Kills a process by SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<ExitStatus> {
        self.replica(process)?.process()?.kill()
    }

    /// Sends SIGTERM to a process and returns at once.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<()> {
        self.replica(process)?.process()?.signal(Signal::TERM)
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn wait_for_end<'a>(
        &self,
        process: impl Into<ProcessId<'a>>,
        limit: Duration,
    ) -> anyhow::Result<ExitStatus> {
        self.replica(process)?.process()?.wait(limit).await
    }

    /// Starts or restarts a process on its port and returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<()> {
        let replica = self.replica(process)?;
        replica.start(self.environment_at(replica.service(), replica.port()))
    }

    /// Starts or restarts a process on its port and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn start_service<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<()> {
        let process = process.into();
        self.launch(process)?;
        self.replica(process)?.wait_until_healthy(&self.http).await
    }

    /// Waits until a process that was launched is healthy.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn wait_until_healthy(&self, service: Service) -> anyhow::Result<()> {
        self.replica(service)?.wait_until_healthy(&self.http).await
    }

    /// Starts one more process of a service, waits until it is healthy, and returns its URL.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn start_extra(&self, service: Service) -> anyhow::Result<String> {
        let replica = Arc::new(Replica::new(service, Lease::take()?, self.new_output()));
        replica.start(self.environment_at(service, replica.port()))?;
        locked(&self.extras).push(Arc::clone(&replica));
        replica.wait_until_healthy(&self.http).await?;
        Ok(replica.url())
    }

    /// Freezes a process by SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<()> {
        self.replica(process)?.process()?.signal(Signal::STOP)
    }

    /// Resumes a frozen process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<()> {
        self.replica(process)?.process()?.signal(Signal::CONT)
    }

    /// The process id of a process that was started.
    #[must_use]
    pub fn pid<'a>(&self, process: impl Into<ProcessId<'a>>) -> Option<u32> {
        Some(self.replica(process).ok()?.process().ok()?.pid())
    }

    /// The events that a service has written to stdout, over all its runs.
    #[must_use]
    pub fn logs(&self, service: Service) -> Vec<serde_json::Value> {
        let lines = self.output(service);
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The lines that a service has written to stdout and stderr, over all its runs.
    #[must_use]
    pub fn output(&self, service: Service) -> Vec<String> {
        self.replica(service)
            .map(|replica| replica.lines())
            .unwrap_or_default()
    }

    /// The last lines of every service that was started, for the message of a failed test.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let services = locked(&self.services);
        let started = services.iter().filter(|(_, replica)| replica.process().is_ok());
        started
            .map(|(service, replica)| format!("{}:\n{}", service.name(), replica.tail()))
            .collect()
    }

    fn new_output(&self) -> Output {
        if self.brief_output {
            Output::brief()
        } else {
            Output::in_memory()
        }
    }

    fn replica<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<Arc<Replica>> {
        let services = locked(&self.services);
        match process.into() {
            ProcessId::Service(service) => services.get(&service).cloned().context("unknown service"),
            ProcessId::Url(url) => {
                let extras = locked(&self.extras);
                let mut all = services.values().chain(extras.iter());
                let found = all.find(|replica| replica.url() == url).cloned();
                found.context("no process has this URL")
            }
        }
    }

    fn environment_at(&self, service: Service, port: u16) -> BTreeMap<String, String> {
        let mut environment = self.environment_through(&self.links, service, port);
        environment.extend(locked(&self.clocks).get(&service).cloned().unwrap_or_default());
        environment
    }

    fn environment_through(&self, links: &Links, service: Service, port: u16) -> BTreeMap<String, String> {
        let mut environment = service.environment(&self.contract);
        environment.extend(links::variables(links, service));
        environment.insert("SERVICE_PORT".to_owned(), port.to_string());
        for (owner, name, value) in locked(&self.overrides).iter() {
            if *owner == service {
                environment.insert(name.clone(), value.clone());
            }
        }
        environment
    }
}

fn contract(
    addresses: &Addresses,
    leases: &BTreeMap<Service, Lease>,
    prices_port: u16,
) -> BTreeMap<String, String> {
    let mut contract = default_contract();
    contract.extend(addresses.write_model.variables("WRITE_MODEL"));
    contract.extend(addresses.read_model.variables("READ_MODEL"));
    let port = |service| {
        leases
            .get(&service)
            .map(Lease::port)
            .unwrap_or_default()
            .to_string()
    };
    contract.extend(addresses.broker.variables());
    let ports = leases.keys().map(|service| {
        let name = format!("{}_PORT", service.name().to_uppercase());
        (name, port(*service))
    });
    contract.extend(ports);
    contract.insert("CB_PORT".to_owned(), prices_port.to_string());
    contract
}
