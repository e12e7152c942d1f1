//! A running native cluster: servers whose data is kept, and the five services.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::arguments::PriceSource;
use super::contract::Contract;
use super::folder::Folder;
use super::{leftovers, prices};
use crate::http_client::http_client;
use crate::issuer::{self, KeysServer, SigningKey};
use crate::prices::PriceSimulator;
use crate::process::Output;
use crate::replica::Replica;
use crate::servers::{Durability, Postgres, RabbitMq, RabbitMqPorts, Setup};
use crate::service::Service;

const SETUP: Setup<'_> = Setup {
    durability: Durability::Full,
    settings: &[],
};

/// Everything that runs. Dropping it shuts down the services, then the servers.
#[derive(Debug)]
pub(crate) struct NativeCluster {
    services: BTreeMap<Service, Arc<Replica>>,
    contract: Contract,
    simulator: Option<PriceSimulator>,
    /// With `--auth`.
    issuer: Option<KeysServer>,
    rabbitmq: Option<RabbitMq>,
    databases: Vec<Postgres>,
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
        println!("starting PostgreSQL (write model, read model) and RabbitMQ");
        let mut cluster = Self {
            services: BTreeMap::new(),
            contract,
            simulator: None,
            issuer: None,
            rabbitmq: None,
            databases: Vec::new(),
        };
        cluster.start_servers(folder, &data).await?;
        println!("  ready after {:.1} s", began.elapsed().as_secs_f32());

        if auth {
            cluster.start_issuer(folder)?;
        } else {
            let _ = fs::remove_file(folder.issuer_key());
        }
        println!("starting the services");
        for service in Service::ALL {
            let log = folder.new_log(service.name());
            let replica = Replica::with_log_file(service, cluster.contract.service_port(service)?, &log)?;
            cluster.services.insert(service, Arc::new(replica));
        }
        let client = http_client()?;
        let btc_price = cluster
            .services
            .get(&Service::BtcPrice)
            .cloned()
            .context("btc_price is unknown")?;
        cluster.simulator = prices::choose(price_source, &mut cluster.contract, &btc_price, &client).await?;
        for (service, replica) in &cluster.services {
            replica.start(cluster.contract.environment(*service, replica.port()))?;
        }
        for replica in cluster.services.values() {
            replica.wait_until_healthy(&client).await?;
        }
        println!("  healthy after {:.1} s", began.elapsed().as_secs_f32());
        Ok(cluster)
    }

    fn start_issuer(&mut self, folder: &Folder) -> anyhow::Result<()> {
        let keys_server = KeysServer::start([&SigningKey::kept_in(&folder.issuer_key())?])?;
        for (name, value) in issuer::variables(&keys_server.url()) {
            self.contract.set(name, value);
        }
        self.issuer = Some(keys_server);
        println!("  clients need a token of the development issuer: scripts/token.sh makes one");
        Ok(())
    }

    async fn start_servers(&mut self, folder: &Folder, data: &Path) -> anyhow::Result<()> {
        let queue = RabbitMqPorts::with_management(self.contract.port("Q_EXT_ADMIN_PORT")?)?;
        let queue_folder = data.join("queue");
        let queue_log = Output::to_file(&folder.new_log("queue"))?;
        let (write_model, read_model, rabbitmq) = tokio::try_join!(
            database(&self.contract, folder, data, "write_model"),
            database(&self.contract, folder, data, "read_model"),
            RabbitMq::start(&queue_folder, queue, self.contract.variables(), SETUP, queue_log),
        )?;
        self.contract.set("Q_PORT", rabbitmq.address().port.to_string());
        let pids: Vec<u32> = [&write_model, &read_model]
            .iter()
            .filter_map(|server| server.pid())
            .chain(rabbitmq.pids())
            .collect();
        leftovers::record(&folder.processes_file(), &pids)?;
        self.databases = vec![write_model, read_model];
        self.rabbitmq = Some(rabbitmq);
        Ok(())
    }

    /// Restarts services that end, as compose does. Returns when a server has ended, with the last lines of its output.
    pub(crate) async fn watch(&self) -> anyhow::Error {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let servers = self.databases.iter().map(Postgres::still_runs);
            for state in servers.chain(self.rabbitmq.iter().map(RabbitMq::still_runs)) {
                if let Err(error) = state {
                    return error;
                }
            }
            for (service, replica) in &self.services {
                if let Err(error) = replica.process().and_then(|process| process.still_runs()) {
                    println!("{error:#}restarting {}", service.name());
                    if let Err(error) = replica.start(self.contract.environment(*service, replica.port())) {
                        return error;
                    }
                }
            }
        }
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
        // At once, as each may take seconds.
        std::thread::scope(|scope| {
            for process in self
                .services
                .values()
                .filter_map(|replica| replica.process().ok())
            {
                scope.spawn(move || process.end_blocking());
            }
        });
        std::thread::scope(|scope| {
            for database in &self.databases {
                scope.spawn(|| database.stop());
            }
            if let Some(rabbitmq) = &self.rabbitmq {
                scope.spawn(|| rabbitmq.stop());
            }
        });
    }
}

async fn database(
    contract: &Contract,
    folder: &Folder,
    data: &Path,
    model: &str,
) -> anyhow::Result<Postgres> {
    let log = Output::to_file(&folder.new_log(model))?;
    Postgres::start(&data.join(model), contract.database(model)?, SETUP, log, None).await
}
