//! A running native cluster: servers whose data is kept, and the five services.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::future::try_join_all;

use super::arguments::PriceSource;
use super::contract::Contract;
use super::folder::Folder;
use super::leftovers::Leftovers;
use super::part::{Part, Program};
use super::prices;
use super::supervisor::Supervisor;
use crate::http_client::http_client;
use crate::issuer::{self, KeysServer, SigningKey};
use crate::prices::PriceSimulator;
use crate::process::Output;
use crate::replica::Replica;
use crate::servers::{Durability, Postgres, RabbitMq, RabbitMqPorts, Setup};
use crate::service::Service;

/// The names of the servers in docker-compose.yml.
const WRITE_MODEL: &str = "write_model";
const READ_MODEL: &str = "read_model";
const QUEUE: &str = "queue";

const SETUP: Setup<'_> = Setup {
    durability: Durability::Full,
    settings: &[],
};

/// Everything that runs. Dropping it shuts down the services, then the servers.
#[derive(Debug)]
pub(crate) struct NativeCluster {
    parts: Vec<Arc<Part>>,
    leftovers: Arc<Leftovers>,
    client: reqwest::Client,
    contract: Contract,
    simulator: Option<PriceSimulator>,
    /// With `--auth`.
    issuer: Option<KeysServer>,
}

impl NativeCluster {
    /// Starts everything, and returns when everything is healthy. On failure or cancellation it stops what it has started.
    pub(crate) async fn start(
        folder: &Folder,
        contract: Contract,
        price_source: PriceSource,
        auth: bool,
    ) -> anyhow::Result<Self> {
        let data = folder.data()?;
        Folder::check_space(&data)?;
        for service in Service::ALL {
            service.binary()?;
        }
        let began = Instant::now();
        say!("starting PostgreSQL (write model, read model) and RabbitMQ");
        let mut cluster = Self {
            parts: Vec::new(),
            leftovers: Arc::new(Leftovers::in_file(folder.processes_file())),
            client: http_client()?,
            contract,
            simulator: None,
            issuer: None,
        };
        let servers = cluster.servers(folder, &data).await?;
        cluster.start_parts(servers).await?;
        say!("  ready after {:.1} s", began.elapsed().as_secs_f32());

        if auth {
            cluster.start_issuer(folder)?;
        } else {
            let _ = fs::remove_file(folder.issuer_key());
        }
        say!("starting the services");
        let services = cluster.services(folder, price_source).await?;
        cluster.start_parts(services).await?;
        say!("  healthy after {:.1} s", began.elapsed().as_secs_f32());
        Ok(cluster)
    }

    fn start_issuer(&mut self, folder: &Folder) -> anyhow::Result<()> {
        let keys_server = KeysServer::start([&SigningKey::kept_in(&folder.issuer_key())?])?;
        for (name, value) in issuer::variables(&keys_server.url()) {
            self.contract.set(name, value);
        }
        self.issuer = Some(keys_server);
        say!("  clients need a token of the development issuer: scripts/token.sh makes one");
        Ok(())
    }

    /// The three servers, which are not started yet.
    async fn servers(&mut self, folder: &Folder, data: &Path) -> anyhow::Result<Vec<Part>> {
        let ports = RabbitMqPorts::with_management(self.contract.port("Q_EXT_ADMIN_PORT")?)?;
        let log = Output::to_file(&folder.new_log(QUEUE))?;
        let queue = RabbitMq::prepare(&data.join(QUEUE), ports, self.contract.variables(), SETUP, log)?;
        self.contract.set("Q_PORT", queue.address().port.to_string());
        let (write_model, read_model) = tokio::try_join!(
            database(&self.contract, folder, data, WRITE_MODEL),
            database(&self.contract, folder, data, READ_MODEL),
        )?;
        Ok(vec![
            self.part(WRITE_MODEL, Program::Database(Box::new(write_model))),
            self.part(READ_MODEL, Program::Database(Box::new(read_model))),
            self.part(QUEUE, Program::Broker(Box::new(queue))),
        ])
    }

    /// The five services, which are not started yet, and the source of prices.
    async fn services(&mut self, folder: &Folder, price_source: PriceSource) -> anyhow::Result<Vec<Part>> {
        let mut replicas = Vec::new();
        for service in Service::ALL {
            let log = folder.new_log(service.name());
            let port = self.contract.service_port(service)?;
            replicas.push(Replica::with_log_file(service, port, &log)?);
        }
        let btc_price = replicas
            .iter()
            .find(|replica| replica.service() == Service::BtcPrice)
            .context("btc_price is unknown")?;
        self.simulator = prices::choose(price_source, &mut self.contract, btc_price, &self.client).await?;
        let part = |replica: Replica| {
            let environment = self.contract.environment(replica.service(), replica.port());
            let name = replica.service().name();
            self.part(name, Program::Service(Box::new(replica), environment))
        };
        Ok(replicas.into_iter().map(part).collect())
    }

    fn part(&self, name: &'static str, program: Program) -> Part {
        Part::new(name, program, &self.client, &self.leftovers)
    }

    /// Starts parts at once. They are stopped with the cluster, also if one of them does not start.
    async fn start_parts(&mut self, parts: Vec<Part>) -> anyhow::Result<()> {
        let first = self.parts.len();
        self.parts.extend(parts.into_iter().map(Arc::new));
        let starts = self.parts.iter().skip(first).map(|part| part.start());
        try_join_all(starts).await?;
        Ok(())
    }

    /// From now on, parts that end are restarted.
    pub(crate) fn supervise(&self) -> Supervisor {
        Supervisor::start(&self.parts)
    }

    /// The source of prices, as printed.
    pub(crate) fn prices(&self) -> &'static str {
        if self.simulator.is_some() {
            "simulator"
        } else {
            "coinbase"
        }
    }

    /// Whether clients need a token of its issuer.
    pub(crate) fn demands_tokens(&self) -> bool {
        self.issuer.is_some()
    }

    /// The contract that the services were started with.
    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }
}

impl Drop for NativeCluster {
    fn drop(&mut self) {
        let (services, servers): (Vec<_>, Vec<_>) = self.parts.iter().partition(|part| part.is_service());
        for parts in [services, servers] {
            // At once, as each may take seconds.
            std::thread::scope(|scope| {
                for part in parts {
                    scope.spawn(|| part.end());
                }
            });
        }
    }
}

async fn database(
    contract: &Contract,
    folder: &Folder,
    data: &Path,
    model: &str,
) -> anyhow::Result<Postgres> {
    let log = Output::to_file(&folder.new_log(model))?;
    Postgres::prepare(&data.join(model), contract.database(model)?, SETUP, log, None).await
}
