//! Private servers: two PostgreSQL instances and a RabbitMQ node, with folders, ports and a cookie of their own.
//! They never touch a server that runs already.

mod postgres;
mod rabbitmq;
mod small_disk;
mod temporary;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::cluster::Options;
use crate::ports::Lease;
use crate::process::Output;

pub use postgres::postgres_binaries;
pub(crate) use postgres::{Durability, Postgres};
pub(crate) use rabbitmq::{RabbitMq, RabbitMqPorts};
pub(crate) use small_disk::SmallDisk;
use temporary::TemporaryFolder;

/// How long a server may take to answer: generous, for machines that are busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How a server is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) durability: Durability,
    /// Parameters by name, with their values; they win over our own.
    pub(crate) settings: &'a [(String, String)],
}

/// Where a database is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role, the owner of the instance.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Name of the database.
    pub name: String,
}

impl DatabaseAddress {
    /// Connection options for sqlx.
    #[must_use]
    pub fn options(&self) -> sqlx::postgres::PgConnectOptions {
        sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.name)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// `postgres://user:password@host:port/name`
    #[must_use]
    pub fn uri(&self) -> String {
        let Self {
            host,
            port,
            user,
            password,
            name,
        } = self;
        let [user, password, name] = [user, password, name].map(|part| url_part(part));
        format!("postgres://{user}:{password}@{host}:{port}/{name}")
    }

    /// Another database of the same instance.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }
}

/// Where a broker is, and which virtual host of it is ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// AMQP port.
    pub port: u16,
    /// User, an administrator.
    pub user: String,
    /// Their password.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
    /// `http://host:port` of the management interface.
    pub management_url: String,
}

impl BrokerAddress {
    /// `amqp://user:password@host:port/vhost`
    #[must_use]
    pub fn uri(&self) -> String {
        let Self {
            host,
            port,
            user,
            password,
            vhost,
            ..
        } = self;
        let [user, password, vhost] = [user, password, vhost].map(|part| url_part(part));
        format!("amqp://{user}:{password}@{host}:{port}/{vhost}")
    }

    /// The address of a management API resource, such as `permissions/{vhost}/{user}`: these stand for our virtual host and user.
    #[must_use]
    pub fn api(&self, resource: &str) -> String {
        format!(
            "{}/api/{}",
            self.management_url,
            resource
                .replace("{vhost}", &url_part(&self.vhost))
                .replace("{user}", &url_part(&self.user))
        )
    }
}

/// A text as one part of a URL, whatever its characters.
pub(crate) fn url_part(text: &str) -> String {
    // What RFC 3986 calls unreserved stays readable.
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The addresses of a set of servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// The instance of the write model.
    pub write_model: DatabaseAddress,
    /// The instance of the read model.
    pub read_model: DatabaseAddress,
    /// The broker.
    pub broker: BrokerAddress,
}

/// Servers for tests and benchmarks, in a temporary folder that is deleted with them: quick rather than durable, unless asked to be durable.
#[derive(Debug)]
pub struct Servers {
    pub(crate) write_model: Postgres,
    pub(crate) read_model: Postgres,
    pub(crate) rabbitmq: RabbitMq,
    // After the server that uses it.
    pub(crate) write_model_disk: Option<SmallDisk>,
    // Last: deleted after the servers have ended.
    _folder: TemporaryFolder,
}

impl Servers {
    /// Starts a set of servers on free ports.
    ///
    /// # Errors
    /// When a server is not installed or does not start.
    pub async fn start_temporary() -> anyhow::Result<Self> {
        Self::start(&Options::default()).await
    }

    /// Starts a set of servers as `options` say.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let durability = if options.durable {
            Durability::WhileItRuns
        } else {
            Durability::None
        };
        let [database_setup, broker_setup] = [&options.database_settings, &options.broker_settings]
            .map(|settings| Setup { durability, settings });
        let folder = TemporaryFolder::create()?;
        let read_model_folder = folder.path().join("read_model");
        let mut write_model_folder = folder.path().join("write_model");
        let mut write_model_disk = None;
        if let Some(bytes) = options.write_model_disk_bytes {
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

    /// Where they are.
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
        name: model.to_owned(),
    };
    Postgres::start(folder, address, setup, Output::in_memory(), Some(lease))
        .await
        .with_context(|| format!("the PostgreSQL instance of the {model} did not start"))
}

async fn broker(folder: &Path, setup: Setup<'_>) -> anyhow::Result<RabbitMq> {
    let ports = RabbitMqPorts::free()?;
    RabbitMq::start(
        &folder.join("queue"),
        ports,
        ("pydist", "pydist_password"),
        setup,
        Output::in_memory(),
    )
    .await
    .context("the RabbitMQ node did not start")
}
