//! What whoever has the password of a service may do from inside its container.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, anyhow, ensure};
use cluster::Service;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Connection, ConnectionProperties};

use super::Deployment;
use crate::inside;
use crate::project::Container;

impl Deployment {
    pub(crate) fn attacks_on_the_databases_are_refused_inside_each_container(&self) -> anyhow::Result<()> {
        const OF_ADMINISTRATORS: [&str; 5] = [
            "SET session_replication_role = replica",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "ALTER ROLE CURRENT_USER SUPERUSER",
            "SELECT rolpassword FROM pg_authid",
        ];
        const OF_THE_BOOK: [&str; 5] = [
            "ALTER TABLE buy_order DISABLE TRIGGER ALL",
            "UPDATE buy_order SET btc_amount = 1",
            "DROP TABLE buy_order",
            "UPDATE buy_order_running_total SET btc_amount = 0",
            "INSERT INTO outbox (type, routing_key, message_id, payload) VALUES ('x', 'x', gen_random_uuid(), '{}')",
        ];
        const OF_THE_PAGES: [&str; 4] = [
            "UPDATE buy_order_read_model SET btc_amount = 1",
            "DELETE FROM buy_order_read_model",
            "DELETE FROM buy_order_void_read_model",
            "DROP TABLE buy_order_read_model",
        ];
        for (service, model, user, attacks) in [
            (
                "create_buy_order",
                "write_model",
                "create_buy_order",
                &OF_THE_BOOK[..],
            ),
            ("read_model_sync", "read_model", "read_model_sync", &OF_THE_PAGES),
            (
                "fetch_buy_orders",
                "read_model",
                "fetch_buy_orders",
                &OF_THE_PAGES,
            ),
            ("migration", "write_model", "write_model_owner", &[]),
            ("migration", "read_model", "read_model_owner", &[]),
        ] {
            let password = match service {
                "migration" => format!("{model}_db_password"),
                _ => format!("{service}_db_password"),
            };
            let ask = |sql: &str| self.sql(service, model, user, &password, "verify-full", sql);
            ask("SELECT 1")?.map_err(|error| anyhow!("{user} cannot log in: {error}"))?;
            for attack in OF_ADMINISTRATORS.iter().chain(attacks) {
                let refusal = ask(attack)?
                    .err()
                    .with_context(|| format!("{user}: done: {attack}"))?;
                let denied = [
                    "permission denied",
                    "must be owner",
                    "must be superuser",
                    "The ",
                    "Only roles",
                ];
                ensure!(
                    denied
                        .iter()
                        .any(|words| refusal.contains(&format!("ERROR:  {words}"))),
                    "{user}: {attack}: {refusal}"
                );
            }
            let plain = self.sql(service, model, user, &password, "disable", "SELECT 1")?;
            let refusal = plain
                .err()
                .with_context(|| format!("{user} logged in without TLS"))?;
            ensure!(refusal.contains("no encryption"), "{refusal}");
        }
        Ok(())
    }

    /// What the server answers to a statement from inside the container of a service, or its complaint.
    fn sql(
        &self,
        service: &str,
        model: &str,
        user: &str,
        password: &str,
        ssl_mode: &str,
        sql: &str,
    ) -> anyhow::Result<Result<String, String>> {
        let container = self.container(service)?;
        let address = self.address_from(&container, model, 5432)?.ip();
        let authority = self.authority();
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", self.secret(password)?)
            .env("LC_ALL", "C")
            .arg(format!(
                "host={model} hostaddr={address} user={user} dbname={model} sslmode={ssl_mode} sslrootcert={}",
                authority.display()
            ))
            .args(["--no-psqlrc", "-c", sql]);
        let output = inside::run(&container, &mut psql)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        })
    }

    /// The address at which this container reaches a server.
    fn address_from(&self, container: &Container, server: &str, port: u16) -> anyhow::Result<SocketAddr> {
        let addresses = self.container(server)?.addresses();
        let mut addresses = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, port));
        addresses
            .find(|address| inside::connect(container, *address).is_ok())
            .with_context(|| format!("{} does not reach {server}", container.name()))
    }

    pub(crate) async fn attacks_on_the_broker_are_refused_inside_each_container(&self) -> anyhow::Result<()> {
        for service in [
            Service::Migration,
            Service::CreateBuyOrder,
            Service::ReadModelSync,
        ] {
            let container = self.container(service.name())?;
            let address = self.address_from(&container, "queue", 5671)?;
            let password = self.secret(&format!("{}_q_password", service.name()))?;
            for (user, password) in [
                (service.name(), "wrong"),
                ("guest", "guest"),
                ("pydist", &password),
            ] {
                let refused = self.log_in(&container, address, user, password).await;
                ensure!(refused.is_err(), "{user} logged in with {password:?}");
            }
            for attack in [Attack::Forge, Attack::Take, Attack::Declare] {
                if service == Service::CreateBuyOrder && attack == Attack::Forge {
                    // Its work is to publish orders.
                    continue;
                }
                let connection = self
                    .log_in(&container, address, service.name(), &password)
                    .await?;
                let refusal = attack.attempt(&connection).await.err();
                let refusal = refusal.with_context(|| format!("{}: {attack:?} was done", service.name()))?;
                ensure!(
                    refusal.to_string().contains("ACCESS_REFUSED"),
                    "{}: {attack:?}: {refusal}",
                    service.name()
                );
            }
        }
        Ok(())
    }

    async fn log_in(
        &self,
        container: &Container,
        address: SocketAddr,
        user: &str,
        password: &str,
    ) -> anyhow::Result<Connection> {
        let authorities = cluster::trusted(&self.authority())?;
        let tunnel = inside::tunnel(container, address, "queue", authorities).await?;
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: user.to_owned(),
                    password: password.to_owned(),
                },
                host: tunnel.ip().to_string(),
                port: tunnel.port(),
            },
            vhost: "/".to_owned(),
            query: AMQPQueryString::default(),
        };
        Ok(Connection::connect_uri(uri, ConnectionProperties::default()).await?)
    }
}

/// What whoever has a service's password may try at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// An order that nobody placed.
    Forge,
    /// Another's messages.
    Take,
    /// A queue of its own.
    Declare,
}

impl Attack {
    async fn attempt(self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        match self {
            Self::Forge => {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let published = channel.basic_publish(
                    "pydist".into(),
                    "buy_order".into(),
                    options,
                    b"forged",
                    properties,
                );
                published.await?.await.map(drop)
            }
            Self::Take => channel
                .basic_get("buy_order.dead_letter".into(), BasicGetOptions::default())
                .await
                .map(drop),
            Self::Declare => channel
                .queue_declare(
                    "another".into(),
                    QueueDeclareOptions::default(),
                    FieldTable::default(),
                )
                .await
                .map(drop),
        }
    }
}
