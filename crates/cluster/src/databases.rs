//! Private databases, cloned from migrated templates, and private virtual hosts.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::address::{Addresses, BrokerAddress, DatabaseAddress};
use crate::http_client::http_client;
use crate::process::Program;
use crate::servers::broker_definitions;
use crate::service::{Service, binary, default_contract};

/// An arbitrary advisory lock that nothing else on these servers uses.
const TEMPLATE_LOCK: i64 = 0x7079_6469_7374;

/// The databases and the virtual host of one cluster. Dropping it deletes them.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) addresses: Addresses,
}

impl Namespace {
    /// Creates one on these servers.
    pub(crate) async fn create(servers: &Addresses, migrated: bool) -> anyhow::Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("test_{id}");
        let namespace = Self {
            addresses: Addresses {
                write_model: servers.write_model.named(&name),
                read_model: servers.read_model.named(&name),
                broker: BrokerAddress {
                    vhost: name,
                    ..servers.broker.clone()
                },
            },
        };
        // From here on a failure drops `namespace`, which deletes what was created.
        let template = if migrated {
            Some(template(servers).await?)
        } else {
            None
        };
        tokio::try_join!(
            create_database(&namespace.addresses.write_model, template.as_deref()),
            create_database(&namespace.addresses.read_model, template.as_deref()),
            create_vhost(&namespace.addresses.broker),
        )?;
        Ok(namespace)
    }

    /// Creates another write model: migrated, empty and not used by any service. It is deleted with its server.
    pub(crate) async fn another_write_model(&self) -> anyhow::Result<DatabaseAddress> {
        let template = template(&self.addresses).await?;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let database = self.addresses.write_model.named(&name);
        create_database(&database, Some(&template)).await?;
        Ok(database)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let addresses = self.addresses.clone();
        // A thread with its own runtime, because this may be dropped within a runtime, or while one shuts down.
        let removal = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let removal = async {
                    let _ = tokio::join!(
                        drop_database(&addresses.write_model),
                        drop_database(&addresses.read_model),
                        delete_vhost(&addresses.broker),
                    );
                };
                // Anything left is deleted with the servers.
                let _ = tokio::time::timeout(Duration::from_secs(20), removal).await;
            });
        });
        let _ = removal.join();
    }
}

async fn execute(maintenance: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(statement.clone()))
        .execute(maintenance)
        .await
        .context(statement)?;
    Ok(())
}

async fn maintenance(database: &DatabaseAddress) -> anyhow::Result<PgConnection> {
    let options = database.named("postgres").options();
    PgConnection::connect_with(&options)
        .await
        .context("the shared PostgreSQL servers do not answer")
}

async fn create_database(database: &DatabaseAddress, template: Option<&str>) -> anyhow::Result<()> {
    let mut connection = maintenance(database).await?;
    let template = template.unwrap_or("template1");
    execute(
        &mut connection,
        format!(
            "CREATE DATABASE \"{}\" TEMPLATE \"{template}\" OWNER \"{}\"",
            database.name, database.owner.user
        ),
    )
    .await?;
    Ok(connection.close().await?)
}

async fn drop_database(database: &DatabaseAddress) -> anyhow::Result<()> {
    let mut connection = maintenance(database).await?;
    execute(
        &mut connection,
        format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", database.name),
    )
    .await?;
    Ok(connection.close().await?)
}

/// The name of the migrated template databases. The first caller of all processes creates them.
async fn template(servers: &Addresses) -> anyhow::Result<String> {
    // Servers may outlive a build, so another `migration` binary gets another template.
    let data = fs::metadata(binary("migration")?)?;
    let name = format!("template_{}_{}", data.mtime(), data.size());
    let mut write_model = maintenance(&servers.write_model).await?;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut write_model)
        .await?;
    let exists = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(&name);
    if exists.fetch_optional(&mut write_model).await?.is_none() {
        let mut read_model = maintenance(&servers.read_model).await?;
        let unfinished = format!("{name}_unfinished");
        for (connection, server) in [
            (&mut write_model, &servers.write_model),
            (&mut read_model, &servers.read_model),
        ] {
            execute(
                connection,
                format!("DROP DATABASE IF EXISTS \"{unfinished}\" WITH (FORCE)"),
            )
            .await?;
            execute(
                connection,
                format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
            )
            .await?;
            execute(
                connection,
                format!("CREATE DATABASE \"{unfinished}\" OWNER \"{}\"", server.owner.user),
            )
            .await?;
        }
        migrate(
            &servers.write_model.named(&unfinished),
            &servers.read_model.named(&unfinished),
        )
        .await?;
        // The write model last: its name means that both are complete.
        for connection in [&mut read_model, &mut write_model] {
            execute(
                connection,
                format!("ALTER DATABASE \"{unfinished}\" RENAME TO \"{name}\""),
            )
            .await?;
        }
    }
    write_model.close().await?;
    Ok(name)
}

async fn migrate(write_model: &DatabaseAddress, read_model: &DatabaseAddress) -> anyhow::Result<()> {
    let mut contract = default_contract();
    contract.extend(write_model.variables("WRITE_MODEL"));
    contract.extend(read_model.variables("READ_MODEL"));
    contract.insert("SERVICE_PORT".to_owned(), "1".to_owned());
    let mut program = Program::new("migration --once", binary("migration")?).arguments(["--once"]);
    program.environment = Service::Migration.environment(&contract).into_iter().collect();
    program.complete(Duration::from_secs(60)).await
}

/// Creates a virtual host in which the users of the broker have the permissions that they have in any deployment.
async fn create_vhost(broker: &BrokerAddress) -> anyhow::Result<()> {
    let mut contract = default_contract();
    contract.extend(broker.variables());
    let mut definitions: serde_json::Value = serde_json::from_str(&broker_definitions(&contract)?)?;
    // The server has made the users at its start. All tests share them.
    definitions["users"] = serde_json::json!([]);
    let request = http_client()?.post(broker.api("definitions"));
    let answer = request
        .basic_auth(&broker.user, Some(&broker.password))
        .json(&definitions)
        .send()
        .await
        .context("RabbitMQ's management interface does not answer")?;
    let status = answer.status();
    if !status.is_success() {
        bail!(
            "RabbitMQ answered {status} to the definitions of a virtual host: {}",
            answer.text().await?
        );
    }
    Ok(())
}

async fn delete_vhost(broker: &BrokerAddress) -> anyhow::Result<()> {
    let request = http_client()?.delete(broker.api("vhosts/{vhost}"));
    request
        .basic_auth(&broker.user, Some(&broker.password))
        .send()
        .await?;
    Ok(())
}
