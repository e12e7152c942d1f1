//! The parts of a cluster for people: servers whose data stays, and the five services.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::contract::Contract;
use super::folder::Folder;
use super::{Prices, leftovers, prices};
use crate::cluster::Replica;
use crate::databases::create_vhost;
use crate::http_client::http_client;
use crate::prices::PriceSimulator;
use crate::process::Output;
use crate::servers::{DatabaseAddress, Durability, Postgres, RabbitMq, RabbitMqPorts, Setup};
use crate::service::Service;

const SETUP: Setup<'_> = Setup {
    durability: Durability::Full,
    settings: &[],
};

/// Everything that runs. Dropping it stops the services, then the servers, in order.
#[derive(Debug)]
pub(crate) struct Parts {
    services: BTreeMap<Service, Arc<Replica>>,
    contract: Contract,
    simulator: Option<PriceSimulator>,
    rabbitmq: Option<RabbitMq>,
    databases: Vec<Postgres>,
}

impl Parts {
    /// Starts all; on return all are healthy. What was started is stopped again on failure, or when this is cancelled.
    pub(crate) async fn start(folder: &Folder, contract: Contract, choice: Prices) -> anyhow::Result<Self> {
        let data = folder.data()?;
        Folder::check_space(&data)?;
        for service in Service::ALL {
            service.binary()?;
        }
        let began = Instant::now();
        println!("starting PostgreSQL (write model, read model) and RabbitMQ");
        let mut parts = Self {
            services: BTreeMap::new(),
            contract,
            simulator: None,
            rabbitmq: None,
            databases: Vec::new(),
        };
        parts.start_servers(folder, &data).await?;
        println!("  ready after {:.1} s", began.elapsed().as_secs_f32());

        println!("starting the services");
        for service in Service::ALL {
            let log = folder.new_log(service.name());
            let replica = Replica::logged(service, parts.contract.service_port(service)?, &log)?;
            parts.services.insert(service, Arc::new(replica));
        }
        let client = http_client()?;
        let btc_price = parts
            .services
            .get(&Service::BtcPrice)
            .cloned()
            .context("btc_price is unknown")?;
        parts.simulator = prices::choose(choice, &mut parts.contract, &btc_price, &client).await?;
        for (service, replica) in &parts.services {
            replica.start(environment(*service, &parts.contract, replica.port()))?;
        }
        for replica in parts.services.values() {
            replica.healthy(&client).await?;
        }
        println!("  healthy after {:.1} s", began.elapsed().as_secs_f32());
        Ok(parts)
    }

    async fn start_servers(&mut self, folder: &Folder, data: &Path) -> anyhow::Result<()> {
        let queue = RabbitMqPorts::with_management(self.contract.port("Q_EXT_ADMIN_PORT")?)?;
        let queue_folder = data.join("queue");
        let queue_log = Output::to_file(&folder.new_log("queue"))?;
        let (write_model, read_model, rabbitmq) = tokio::try_join!(
            database(&self.contract, folder, data, "write_model"),
            database(&self.contract, folder, data, "read_model"),
            RabbitMq::start(
                &queue_folder,
                queue,
                (self.contract.get("Q_USER")?, self.contract.get("Q_PWD")?),
                SETUP,
                queue_log,
            ),
        )?;
        let mut broker = rabbitmq.address().clone();
        self.contract.set("Q_PORT", broker.port.to_string());
        let pids: Vec<u32> = [&write_model, &read_model]
            .iter()
            .filter_map(|server| server.pid())
            .chain(rabbitmq.pids())
            .collect();
        leftovers::record(&folder.processes_file(), &pids)?;
        self.databases = vec![write_model, read_model];
        self.rabbitmq = Some(rabbitmq);
        self.contract.get("Q_VHOST")?.clone_into(&mut broker.vhost);
        create_vhost(&broker).await
    }

    /// Returns when a server has ended, with its last lines. A service that ends is started again, as compose does.
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
                    println!("{error:#}starting {} again", service.name());
                    if let Err(error) = replica.start(environment(*service, &self.contract, replica.port())) {
                        return error;
                    }
                }
            }
        }
    }

    /// Where prices come from.
    pub(crate) fn prices(&self) -> &'static str {
        if self.simulator.is_some() {
            "simulator"
        } else {
            "coinbase"
        }
    }

    /// The contract that the services were started with.
    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // All are asked at once: each may take seconds.
        std::thread::scope(|scope| {
            for process in self
                .services
                .values()
                .filter_map(|replica| replica.process().ok())
            {
                scope.spawn(move || process.end_now());
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

/// What a service is started with on this port.
pub(crate) fn environment(service: Service, contract: &Contract, port: u16) -> BTreeMap<String, String> {
    let mut environment = service.environment(&contract.variables);
    environment.insert("SERVICE_PORT".to_owned(), port.to_string());
    environment
}

async fn database(
    contract: &Contract,
    folder: &Folder,
    data: &Path,
    model: &str,
) -> anyhow::Result<Postgres> {
    let prefix = model.to_uppercase();
    let address = DatabaseAddress {
        host: "127.0.0.1".to_owned(),
        port: contract.port(&format!("{prefix}_DB_EXT_PORT"))?,
        user: contract.get(&format!("{prefix}_POSTGRES_USER"))?.to_owned(),
        password: contract.get(&format!("{prefix}_POSTGRES_PASSWORD"))?.to_owned(),
        name: contract.get(&format!("{prefix}_POSTGRES_DB"))?.to_owned(),
    };
    let log = Output::to_file(&folder.new_log(model))?;
    Postgres::start(&data.join(model), address, SETUP, log, None).await
}
