//! `docker-compose.production.yml`: what it refuses to hand out, seen from outside and from inside each container.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use cluster::Service;
use cluster::issuer::{ALL_SCOPES, AUDIENCE, ISSUER, SigningKey, claims, jwks};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::header::HeaderMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::black_box::System;
use crate::inside;
use crate::project::{Container, Project, docker};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const TOKEN_LIFETIME_S: u64 = 3600;
const PROJECTION_LIMIT: Duration = Duration::from_secs(60);
const RELOAD_LIMIT: Duration = Duration::from_secs(60);

/// Ports, with the containers that may reach them.
const PORTS: [(&str, u16, &[&str]); 14] = [
    ("write_model", 5432, &["migration", "create_buy_order"]),
    (
        "read_model",
        5432,
        &["migration", "read_model_sync", "fetch_buy_orders"],
    ),
    ("queue", 5671, OF_THE_BROKER),
    // Erlang's own, which want its cookie.
    ("queue", 4369, OF_THE_BROKER),
    ("queue", 25672, OF_THE_BROKER),
    // Without TLS.
    ("queue", 5672, &[]),
    // The management interface, and metrics.
    ("queue", 15672, &[]),
    ("queue", 15692, &[]),
    (
        "log",
        24224,
        &[
            "migration",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
        ],
    ),
    (
        "create_buy_order",
        8080,
        &[
            "entry",
            "log",
            "migration",
            "btc_price",
            "read_model_sync",
            "fetch_buy_orders",
            "write_model",
            "queue",
        ],
    ),
    (
        "fetch_buy_orders",
        8080,
        &[
            "entry",
            "log",
            "migration",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "read_model",
        ],
    ),
    (
        "btc_price",
        8080,
        &[
            "price_simulator",
            "log",
            "migration",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
        ],
    ),
    (
        "migration",
        8080,
        &[
            "log",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
            "write_model",
            "read_model",
            "queue",
        ],
    ),
    ("price_simulator", 8080, &["btc_price"]),
];

const OF_THE_BROKER: &[&str] = &["migration", "create_buy_order", "read_model_sync"];

/// Containers that can open connections to the world outside.
const OUTWARD: [&str; 5] = [
    "btc_price",
    "create_buy_order",
    "fetch_buy_orders",
    "entry",
    "price_simulator",
];

/// The project, its secrets, and an issuer's key.
pub(crate) struct Deployment {
    pub(crate) project: Project,
    folder: TempDir,
    key: SigningKey,
}

impl Deployment {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = SigningKey::es256()?;
        let keys = folder.path().join("jwks.json");
        fs::write(&keys, jwks([&key]))?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("path");
        let deployment = Self {
            project: Project::production(vec![
                ("SECRETS_DIR", text(&secrets(&folder))?),
                ("AUTH_ISSUER", ISSUER.to_owned()),
                ("AUTH_AUDIENCE", AUDIENCE.to_owned()),
                ("AUTH_JWKS_FILE", text(&keys)?),
            ])?,
            folder,
            key,
        };
        deployment.make_secrets(&["--host", "localhost", "--host", "orders.test"])?;
        deployment.trust_the_simulator()?;
        Ok(deployment)
    }

    /// The source of prices has a certificate of its own. A public authority vouches for that of Coinbase.
    fn trust_the_simulator(&self) -> anyhow::Result<()> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["price_simulator".to_owned()])?;
        let folder = secrets(&self.folder);
        fs::write(folder.join("price_simulator.crt"), cert.pem())?;
        fs::write(folder.join("price_simulator.key"), signing_key.serialize_pem())?;
        let authorities = fs::read_to_string(self.authority())? + &cert.pem();
        Ok(fs::write(self.authority(), authorities)?)
    }

    fn make_secrets(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(Path::new(ROOT).join("scripts/make_secrets.sh"))
            .args(arguments)
            .env("SECRETS_DIR", secrets(&self.folder))
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    fn secret(&self, file: &str) -> anyhow::Result<String> {
        let text = fs::read_to_string(secrets(&self.folder).join(file)).with_context(|| file.to_owned())?;
        Ok(text.trim_end().to_owned())
    }

    fn authority(&self) -> PathBuf {
        secrets(&self.folder).join("ca.crt")
    }

    /// For client 1, who has a token.
    pub(crate) fn system(&self) -> anyhow::Result<System> {
        let token = self.key.sign(&claims(1, ALL_SCOPES, TOKEN_LIFETIME_S)?)?;
        self.system_for(cluster::bearer(&token)?)
    }

    fn system_for(&self, headers: HeaderMap) -> anyhow::Result<System> {
        let url = |variable| anyhow::Ok(format!("https://localhost:{}", self.project.port(variable)?));
        Ok(System {
            create_buy_order: url("CREATE_BUY_ORDER_EXT_PORT")?,
            fetch_buy_orders: url("FETCH_BUY_ORDERS_EXT_PORT")?,
            http: cluster::https_client_with(headers, &self.authority())?,
        })
    }

    fn container(&self, service: &str) -> anyhow::Result<Container> {
        let mut containers = self.project.containers(Some(service))?;
        containers
            .pop()
            .with_context(|| format!("{service} has no container"))
    }

    pub(crate) fn containers_write_nowhere_and_are_published_nowhere(&self) -> anyhow::Result<()> {
        for container in self.project.containers(None)? {
            let (name, host) = (container.name(), &container.0["HostConfig"]);
            ensure!(
                host["ReadonlyRootfs"] == true,
                "{name} may write to its file system"
            );
            let pids = host["PidsLimit"].as_u64();
            ensure!(
                pids.is_some_and(|pids| pids > 0),
                "{name} may make any number of processes"
            );
            let published = host["PortBindings"].as_object().map_or(0, serde_json::Map::len);
            let expected = if container.service() == "entry" { 2 } else { 0 };
            ensure!(published == expected, "{name} publishes {}", host["PortBindings"]);
        }
        Ok(())
    }

    /// `docker inspect` shows the environment to everybody who may ask the engine.
    pub(crate) fn no_password_is_in_the_environment_of_a_container(&self) -> anyhow::Result<()> {
        for container in self.project.containers(None)? {
            let variables = container.0["Config"]["Env"].as_array().context("no variables")?;
            for variable in variables.iter().filter_map(Value::as_str) {
                let (name, value) = variable.split_once('=').context("no value")?;
                let is_password = name.ends_with("_PWD") || name.ends_with("PASSWORD");
                ensure!(!is_password || value.is_empty(), "{}: {name}", container.name());
            }
        }
        Ok(())
    }

    pub(crate) async fn an_order_needs_a_token_and_tls(&self) -> anyhow::Result<()> {
        let system = self.system()?;
        let order = system.place("USD", "123.45").await?;
        cluster::wait_until("the order is on the page", PROJECTION_LIMIT, async || {
            Ok(system.book().await?.contains(&order))
        })
        .await?;
        let nobody = self.system_for(HeaderMap::new())?;
        let answer = nobody.put(&cluster::new_order("USD", "0.01")).await?;
        ensure!(answer.status == 401, "{answer:?}");
        ensure!(
            answer.header("strict-transport-security").is_some(),
            "a browser may try without TLS: {answer:?}"
        );
        let plain = system.create_buy_order.replace("https:", "http:");
        let plain = cluster::http_client()?.get(plain).send().await;
        ensure!(plain.is_err(), "answered without TLS: {plain:?}");
        Ok(())
    }

    pub(crate) fn a_container_reaches_what_it_needs_and_nothing_else(&self) -> anyhow::Result<()> {
        let containers = self.project.containers(None)?;
        thread::scope(|scope| {
            let checks: Vec<_> = PORTS
                .iter()
                .map(|port| scope.spawn(|| self.is_reached_by(&containers, port)))
                .collect();
            let mut outcomes = checks.into_iter().map(|check| check.join());
            outcomes.try_for_each(|outcome| outcome.map_err(|_| anyhow!("a check panicked"))?)
        })?;
        let mut outward = BTreeSet::new();
        for container in &containers {
            if container.has_a_way_out()? {
                outward.insert(container.service());
            }
        }
        ensure!(outward == OUTWARD.into(), "{outward:?} reach the world outside");
        Ok(())
    }

    /// Whether these containers, and no others, reach this port. All try at once, because what is dropped is noticed only after a while.
    fn is_reached_by(
        &self,
        containers: &[Container],
        (server, port, allowed): &(&str, u16, &[&str]),
    ) -> anyhow::Result<()> {
        let addresses = self.container(server)?.addresses();
        let reaches = |container: &Container| {
            let mut sockets = addresses.iter().map(|address| SocketAddr::new(*address, *port));
            sockets.any(|socket| inside::connect(container, socket).is_ok())
        };
        let others = containers
            .iter()
            .filter(|container| container.service() != *server);
        let reaching: BTreeSet<&str> = thread::scope(|scope| {
            let attempts: Vec<_> = others
                .map(|container| scope.spawn(|| (container.service(), reaches(container))))
                .collect();
            let outcomes = attempts.into_iter().filter_map(|attempt| attempt.join().ok());
            outcomes
                .filter_map(|(service, reached)| reached.then_some(service))
                .collect()
        });
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        ensure!(
            reaching == allowed,
            "{server}:{port} is reached by {reaching:?}, not by {allowed:?}"
        );
        Ok(())
    }

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
        const OF_THE_PAGES: [&str; 3] = [
            "UPDATE buy_order_read_model SET btc_amount = 1",
            "DELETE FROM buy_order_read_model",
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

    /// Each container sees that its files were written again. New connections get the new certificate. PostgreSQL has to be told.
    pub(crate) async fn new_certificates_are_used_without_a_restart(&self) -> anyhow::Result<()> {
        let services = [
            "migration",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
        ];
        self.make_secrets(&["--certificates", "--days", "30"])?;
        for service in services {
            let container = self.container(service)?;
            let address = SocketAddr::new(*container.addresses().first().context("no address")?, 8080);
            let expected =
                CertificateDer::from_pem_file(secrets(&self.folder).join(format!("{service}.crt")))?;
            cluster::wait_until("the new certificate is used", RELOAD_LIMIT, async || {
                let authorities = cluster::trusted(&self.authority())?;
                Ok(inside::certificate(&container, address, service, authorities).await? == expected)
            })
            .await?;
        }
        let model = self.container("write_model")?;
        docker(&[
            "exec",
            model.id(),
            "install",
            "-m",
            "600",
            "/run/secrets/key",
            "/var/run/postgresql/tls.key",
        ])?;
        docker(&[
            "exec",
            model.id(),
            "psql",
            "--username=write_model",
            "-c",
            "SELECT pg_reload_conf()",
        ])?;
        let address = SocketAddr::new(*model.addresses().first().context("no address")?, 5432);
        let expected = self.secret("write_model.crt")?;
        cluster::wait_until("PostgreSQL shows the new certificate", RELOAD_LIMIT, async || {
            let mut openssl = Command::new("openssl");
            openssl.args([
                "s_client",
                "-starttls",
                "postgres",
                "-connect",
                &address.to_string(),
            ]);
            let shown = inside::run(&model, &mut openssl)?;
            Ok(String::from_utf8_lossy(&shown.stdout).contains(&expected))
        })
        .await?;
        // It keeps its names.
        docker(&["restart", self.container("entry")?.id()])?;
        let system = self.system()?;
        cluster::wait_until("an order is placed", RELOAD_LIMIT, async || {
            system.place("USD", "0.01").await.map(|_| true)
        })
        .await
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

fn secrets(folder: &TempDir) -> PathBuf {
    folder.path().join("secrets")
}
