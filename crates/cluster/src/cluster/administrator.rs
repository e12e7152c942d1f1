//! Changes that an administrator of PostgreSQL makes to a database that services use (own servers only).

use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Cluster;
use super::server_control::Server;
use crate::address::DatabaseAddress;
use crate::service::Service;

/// An administrator, connected to another database of the server, so that the connection survives changes to this database and its roles.
#[derive(Debug)]
pub struct Administrator {
    connection: PgConnection,
    database: DatabaseAddress,
    /// Names and passwords of the services that use the database.
    roles: Vec<(String, String)>,
}

impl Cluster {
    /// An administrator of the server of one of the two models (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, or it does not answer, or the server is the broker.
    pub async fn administrator(&self, server: Server) -> anyhow::Result<Administrator> {
        self.servers()?;
        let addresses = self.addresses();
        let (database, model, services) = match server {
            Server::WriteModel => (
                &addresses.write_model,
                "WRITE_MODEL",
                [Service::Migration, Service::CreateBuyOrder].as_slice(),
            ),
            Server::ReadModel => (
                &addresses.read_model,
                "READ_MODEL",
                [
                    Service::Migration,
                    Service::ReadModelSync,
                    Service::FetchBuyOrders,
                ]
                .as_slice(),
            ),
            Server::Broker => bail!("the broker is not a database"),
        };
        let mut roles = Vec::new();
        for service in services {
            let mut environment = self.environment(*service)?;
            let mut variable = |name: &str| environment.remove(&format!("{model}_DB_{name}"));
            roles.extend(variable("USER").zip(variable("PWD")));
        }
        let maintenance = database.named("postgres").options();
        Ok(Administrator {
            connection: PgConnection::connect_with(&maintenance).await?,
            database: database.clone(),
            roles,
        })
    }
}

impl Administrator {
    /// Makes new sessions read-only by default, or resets that, and ends open sessions, as after a failover to a standby and back.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn set_read_only(&mut self, on: bool) -> anyhow::Result<()> {
        let database = &self.database.name;
        let statement = if on {
            format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = on")
        } else {
            format!("ALTER DATABASE \"{database}\" RESET default_transaction_read_only")
        };
        self.execute(statement).await?;
        self.end_sessions().await
    }

    /// Sets the password of each service's role to theirs or to another one, and ends their sessions.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn set_password(&mut self, theirs: bool) -> anyhow::Result<()> {
        let other = if theirs { "" } else { "another " };
        for (user, password) in self.roles.clone() {
            self.execute(format!("ALTER ROLE \"{user}\" PASSWORD '{other}{password}'"))
                .await?;
        }
        self.end_sessions().await
    }

    /// Renames the database, or gives it its old name. This ends its sessions.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn set_renamed(&mut self, renamed: bool) -> anyhow::Result<()> {
        let name = self.database.name.clone();
        let other = format!("{name}_renamed");
        let (from, to) = if renamed { (&name, &other) } else { (&other, &name) };
        self.execute(format!("ALTER DATABASE \"{from}\" ALLOW_CONNECTIONS false"))
            .await?;
        self.end_sessions().await?;
        self.execute(format!("ALTER DATABASE \"{from}\" RENAME TO \"{to}\""))
            .await?;
        self.execute(format!("ALTER DATABASE \"{to}\" ALLOW_CONNECTIONS true"))
            .await
    }

    async fn end_sessions(&mut self) -> anyhow::Result<()> {
        // Waits at most five seconds for each: a database cannot be renamed while it has sessions.
        sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1")
            .bind(&self.database.name)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    async fn execute(&mut self, statement: String) -> anyhow::Result<()> {
        sqlx::query(AssertSqlSafe(statement.clone()))
            .execute(&mut self.connection)
            .await
            .context(statement)?;
        Ok(())
    }
}
