//! Private servers: two PostgreSQL instances and a RabbitMQ node, with their own folders, ports and cookie.
//! They never use a server that runs already.

mod postgres;
mod rabbitmq;
mod setup;
mod small_disk;
mod temporary;

use std::path::Path;

use anyhow::Context as _;

use crate::address::{Addresses, DatabaseAddress, Owner};
use crate::ports::Lease;
use crate::process::Output;
use crate::service::default_contract;

pub(crate) use postgres::Postgres;
pub use postgres::{create_owner, postgres_binaries};
pub(crate) use rabbitmq::{RabbitMq, RabbitMqPorts, broker_definitions};
pub use setup::ServerSettings;
pub(crate) use setup::{Durability, Setup};
pub(crate) use small_disk::SmallDisk;
use temporary::TemporaryFolder;

/// Servers for tests and benchmarks, in a temporary folder that is deleted with them. They are fast rather than durable, unless durability is
/// requested.
#[derive(Debug)]
pub struct Servers {
    pub(crate) write_model: Postgres,
    pub(crate) read_model: Postgres,
    pub(crate) rabbitmq: RabbitMq,
    // Dropped after the server that uses it.
    pub(crate) write_model_disk: Option<SmallDisk>,
    // Dropped last: deleted after the servers have ended.
    _folder: TemporaryFolder,
}

impl Servers {
    /// Starts a set of servers on free ports.
    ///
    /// # Errors
    /// When a server is not installed or does not start.
    pub async fn start_temporary() -> anyhow::Result<Self> {
        Self::start(&ServerSettings::default()).await
    }

    /// Starts a set of servers with these settings.
    pub(crate) async fn start(settings: &ServerSettings) -> anyhow::Result<Self> {
        let durability = if settings.durable {
            Durability::WhileItRuns
        } else {
            Durability::None
        };
        let [database_setup, broker_setup] =
            [&settings.database, &settings.broker].map(|settings| Setup { durability, settings });
        let folder = TemporaryFolder::create()?;
        let read_model_folder = folder.path().join("read_model");
        let mut write_model_folder = folder.path().join("write_model");
        let mut write_model_disk = None;
        if let Some(bytes) = settings.write_model_disk_bytes {
            let disk = SmallDisk::mount(&write_model_folder, bytes).await?;
            disk.folder().clone_into(&mut write_model_folder);
            write_model_disk = Some(disk);
        }
        let (write_model, read_model, rabbitmq) = tokio::try_join!(
            database(&write_model_folder, "write_model", database_setup),
            database(&read_model_folder, "read_model", database_setup),
            broker(folder.path(), broker_setup),
        )?;
        if write_model_disk.is_some() {
            write_model.keep_log_small().await?;
        }
        Ok(Self {
            write_model,
            read_model,
            rabbitmq,
            write_model_disk,
            _folder: folder,
        })
    }

    /// Their addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            write_model: self.write_model.address().clone(),
            read_model: self.read_model.address().clone(),
            broker: self.rabbitmq.address().clone(),
        }
    }
}

async fn database(folder: &Path, model: &str, setup: Setup<'_>) -> anyhow::Result<Postgres> {
    let lease = Lease::take()?;
    let address = DatabaseAddress {
        host: "127.0.0.1".to_owned(),
        port: lease.port(),
        user: model.to_owned(),
        password: format!("{model}_password"),
        owner: Owner {
            user: format!("{model}_owner"),
            password: format!("{model}_owner_password"),
        },
        name: model.to_owned(),
    };
    Postgres::start(folder, address, setup, Output::in_memory(), Some(lease))
        .await
        .with_context(|| format!("the PostgreSQL instance of the {model} did not start"))
}

async fn broker(folder: &Path, setup: Setup<'_>) -> anyhow::Result<RabbitMq> {
    let ports = RabbitMqPorts::free()?;
    let mut contract = default_contract();
    let administrator = [("Q_USER", "pydist"), ("Q_PWD", "pydist_password")];
    contract.extend(administrator.map(|(name, value)| (name.to_owned(), value.to_owned())));
    RabbitMq::start(
        &folder.join("queue"),
        ports,
        &contract,
        setup,
        Output::in_memory(),
    )
    .await
    .context("the RabbitMQ node did not start")
}
