//! A compose project of this test, independent of others on the machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::black_box::System;

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The variable with the name of the project, so that the caller can clean up after a test that was killed.
const PROJECT_VARIABLE: &str = "COMPOSE_TEST_PROJECT";

/// Health checks run every 5 s, and RabbitMQ starts slowly on a busy machine.
const HEALTHY_LIMIT: Duration = Duration::from_secs(180);

/// The broker's logins, with characters beyond ASCII: two, three and four bytes each in UTF-8.
pub(crate) const BROKER_LOGIN: [(&str, &str); 9] = [
    ("Q_USER", "büser"),
    ("Q_PWD", "pä€ #'ss🔑"),
    ("Q_VHOST", "vß€"),
    ("MIGRATION_Q_USER", "mügration"),
    ("MIGRATION_Q_PWD", "pä€ #'ss🔑 \"\\ m"),
    ("CREATE_BUY_ORDER_Q_USER", "cräate"),
    ("CREATE_BUY_ORDER_Q_PWD", "pä€ #'ss🔑 \"\\ c"),
    ("READ_MODEL_SYNC_Q_USER", "€sync"),
    ("READ_MODEL_SYNC_Q_PWD", "pä€ #'ss🔑 \"\\ r"),
];

const PAUSE: Duration = Duration::from_millis(500);

/// The files of the deployment for development.
const DEVELOPMENT: &[&str] = &[
    "docker-compose.yml",
    "docker-compose.override.yml",
    "docker-compose.simulator.yml",
];

/// The files of the production deployment. Its prices come from the simulator, too.
const PRODUCTION: &[&str] = &[
    "docker-compose.yml",
    "docker-compose.production.yml",
    "docker-compose.simulator.yml",
    "crates/cluster/tests/compose/production.yml",
];

/// A project with its own host ports. Dropping it removes containers, networks and volumes.
#[derive(Debug)]
pub(crate) struct Project {
    name: String,
    files: &'static [&'static str],
    // Override `.env`.
    ports: Vec<(&'static str, u16)>,
    variables: Vec<(&'static str, String)>,
}

/// What the engine knows about a container.
#[derive(Debug, Clone)]
pub(crate) struct Container(pub(crate) Value);

impl Container {
    pub(crate) fn id(&self) -> &str {
        self.0["Id"].as_str().unwrap_or_default()
    }

    /// The name for messages.
    pub(crate) fn name(&self) -> &str {
        self.0["Name"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches('/')
    }

    /// The compose service that it is a replica of.
    pub(crate) fn service(&self) -> &str {
        self.0["Config"]["Labels"]["com.docker.compose.service"]
            .as_str()
            .unwrap_or_default()
    }

    /// The name of the image in compose.
    pub(crate) fn image(&self) -> &str {
        self.0["Config"]["Image"].as_str().unwrap_or_default()
    }

    /// Whether the image is built from this repository.
    pub(crate) fn is_ours(&self) -> bool {
        self.image().starts_with("pydist/")
    }

    /// Whether it is running, and healthy if it has a health check.
    fn is_healthy(&self) -> bool {
        let state = &self.0["State"];
        state["Running"] == true
            && state["Health"]["Status"]
                .as_str()
                .is_none_or(|status| status == "healthy")
    }

    /// Its addresses, one in each network.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let networks = self.0["NetworkSettings"]["Networks"].as_object();
        let addresses = networks.into_iter().flat_map(|networks| networks.values());
        addresses
            .filter_map(|network| network["IPAddress"].as_str()?.parse().ok())
            .collect()
    }

    /// Whether it is in a network that the engine connects with others.
    pub(crate) fn has_a_way_out(&self) -> anyhow::Result<bool> {
        let networks = self.0["NetworkSettings"]["Networks"]
            .as_object()
            .context("no networks")?;
        let mut inspect = vec!["network", "inspect", "--format", "{{.Internal}}"];
        inspect.extend(networks.keys().map(String::as_str));
        Ok(docker(&inspect)?.lines().any(|internal| internal != "true"))
    }

    /// The process that the engine started.
    pub(crate) fn process(&self) -> anyhow::Result<i64> {
        self.0["State"]["Pid"].as_i64().context("it does not run")
    }

    /// Its output so far.
    pub(crate) fn logs(&self) -> anyhow::Result<String> {
        docker(&["logs", self.id()])
    }
}

impl Project {
    pub(crate) fn development() -> anyhow::Result<Self> {
        let variables = BROKER_LOGIN.map(|(name, value)| (name, value.to_owned()));
        Self::create("", DEVELOPMENT, variables.into())
    }

    pub(crate) fn production(variables: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        Self::create("_production", PRODUCTION, variables)
    }

    fn create(
        suffix: &str,
        files: &'static [&'static str],
        variables: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let mut name = match std::env::var_os(PROJECT_VARIABLE) {
            Some(name) => name
                .into_string()
                .ok()
                .context("COMPOSE_TEST_PROJECT is not text")?,
            None => format!("pydist_test_{}", Uuid::new_v4().simple()),
        };
        name.push_str(suffix);
        let names = [
            "CREATE_BUY_ORDER_EXT_PORT",
            "FETCH_BUY_ORDERS_EXT_PORT",
            "CONSOLE_EXT_PORT",
            "WRITE_MODEL_DB_EXT_PORT",
            "READ_MODEL_DB_EXT_PORT",
            "Q_EXT_ADMIN_PORT",
        ];
        // All are held until all are found, so that no port is used twice.
        let held: Vec<TcpListener> = names.iter().map(|_| free_port()).collect::<anyhow::Result<_>>()?;
        let ports = names
            .iter()
            .zip(&held)
            .map(|(name, listener)| Ok((*name, listener.local_addr()?.port())))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            name,
            files,
            ports,
            variables,
        })
    }

    /// The published addresses.
    pub(crate) fn system(&self) -> anyhow::Result<System> {
        Ok(System {
            create_buy_order: self.url("CREATE_BUY_ORDER_EXT_PORT")?,
            fetch_buy_orders: self.url("FETCH_BUY_ORDERS_EXT_PORT")?,
            http: cluster::http_client()?,
        })
    }

    /// The URL of a resource of the broker's management API.
    pub(crate) fn broker_api(&self, resource: &str) -> anyhow::Result<String> {
        Ok(format!("{}/api/{resource}", self.url("Q_EXT_ADMIN_PORT")?))
    }

    fn url(&self, variable: &str) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.port(variable)?))
    }

    /// The port that this variable of `.env` has here.
    pub(crate) fn port(&self, variable: &str) -> anyhow::Result<u16> {
        let port = self.ports.iter().find(|(name, _)| *name == variable);
        Ok(port.context("no such port")?.1)
    }

    /// Runs `up` with these additional arguments, and waits until everything is healthy.
    pub(crate) async fn up(&self, system: &System, arguments: &[&str]) -> anyhow::Result<()> {
        let mut all = vec!["up", "--detach", "--no-build", "--no-recreate"];
        all.extend(arguments);
        self.compose(&all)?;
        self.healthy(system).await
    }

    /// Starts the issuer for development, and has the two public services demand its tokens. Returns the system for a client that has one.
    pub(crate) async fn up_with_tokens(&self, system: &System) -> anyhow::Result<System> {
        const WITH_ISSUER: [&str; 2] = ["-f", "docker-compose.auth.yml"];
        let with_issuer = |arguments: &[&str]| self.compose(&[&WITH_ISSUER, arguments].concat());
        with_issuer(&["up", "--detach", "--no-build"])?;
        self.healthy(system).await?;
        let output = with_issuer(&["exec", "-T", "issuer", "/service", "token"])?;
        let token = output.lines().find(|line| line.starts_with("ey"));
        let token = token.with_context(|| format!("the issuer gave no token: {output}"))?;
        let with_token = System {
            http: cluster::http_client_with(cluster::bearer(token)?)?,
            ..system.clone()
        };
        cluster::wait_until("the services know the issuer's key", HEALTHY_LIMIT, async || {
            with_token.place("USD", "0.01").await?;
            with_token.book().await?;
            Ok(true)
        })
        .await?;
        Ok(with_token)
    }

    /// Waits until every container is healthy and the entry forwards requests.
    pub(crate) async fn healthy(&self, system: &System) -> anyhow::Result<()> {
        let all_healthy = async || {
            // Each check is expensive.
            tokio::time::sleep(PAUSE).await;
            let containers = self.containers(None)?;
            let sick: Vec<&str> = containers
                .iter()
                .filter(|container| !container.is_healthy())
                .map(Container::name)
                .collect();
            ensure!(!containers.is_empty() && sick.is_empty(), "not healthy: {sick:?}");
            for base in [&system.create_buy_order, &system.fetch_buy_orders] {
                system.get(&format!("{base}/healthcheck")).await?.expect(200)?;
            }
            Ok(true)
        };
        let outcome = cluster::wait_until("every container is healthy", HEALTHY_LIMIT, all_healthy).await;
        outcome.map_err(|error| error.context(self.sickness()))
    }

    /// The containers of a service, or all containers.
    pub(crate) fn containers(&self, service: Option<&str>) -> anyhow::Result<Vec<Container>> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let of_service = service.map(|service| format!("label=com.docker.compose.service={service}"));
        let mut arguments = vec!["ps", "--all", "--quiet", "--no-trunc", "--filter", &project];
        if let Some(of_service) = &of_service {
            arguments.extend(["--filter", of_service]);
        }
        let ids = docker(&arguments)?;
        if ids.trim().is_empty() {
            return Ok(Vec::new());
        }
        let mut inspect = vec!["inspect"];
        inspect.extend(ids.split_whitespace());
        let containers: Vec<Value> = serde_json::from_str(&docker(&inspect)?)?;
        Ok(containers.into_iter().map(Container).collect())
    }

    /// The images that are built from this repository.
    pub(crate) fn own_images(&self) -> anyhow::Result<BTreeSet<String>> {
        let containers = self.containers(None)?.into_iter();
        let own = containers.filter(Container::is_ours);
        let images: BTreeSet<String> = own.map(|container| container.image().to_owned()).collect();
        ensure!(images.len() >= 6, "six services have six images: {images:?}");
        Ok(images)
    }

    /// Removes everything of the project, and fails if something is left.
    pub(crate) fn down(&self) -> anyhow::Result<()> {
        self.compose(&["down", "--volumes", "--remove-orphans"])?;
        let label = format!("label=com.docker.compose.project={}", self.name);
        for listing in [["ps", "--all"], ["volume", "ls"], ["network", "ls"]] {
            let left = docker(&[listing[0], listing[1], "--quiet", "--filter", &label])?;
            ensure!(
                left.trim().is_empty(),
                "`down` left behind, in `docker {}`: {left}",
                listing.join(" ")
            );
        }
        Ok(())
    }

    /// The last output of every container that is not healthy.
    fn sickness(&self) -> String {
        let containers = self.containers(None).unwrap_or_default();
        let sick = containers.iter().filter(|container| !container.is_healthy());
        let words = sick.map(|container| {
            let logs = docker(&["logs", "--tail", "15", container.id()]).unwrap_or_default();
            format!(
                "last words of {}, {}:\n{logs}",
                container.name(),
                container.0["State"]
            )
        });
        words.collect::<Vec<_>>().join("\n")
    }

    fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(Path::new(ROOT).join("scripts/compose.sh"));
        command
            .args(self.files.iter().flat_map(|file| ["-f", file]))
            .args(["-p", &self.name])
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(self.ports.iter().map(|(name, port)| (name, port.to_string())));
        output(&mut command)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // After `down` succeeded this finds nothing.
        if self
            .containers(None)
            .is_ok_and(|containers| containers.is_empty())
        {
            return;
        }
        if let Err(error) = self.down() {
            eprintln!("could not remove the project {}: {error:#}", self.name);
        }
    }
}

/// Runs `docker` and returns its output.
pub(crate) fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new("docker").args(arguments))
}

/// Runs a command and returns its standard output and standard error: `docker logs` uses both.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("could not run {command:?}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success(),
        "{command:?} failed, {}:\n{text}",
        output.status
    );
    Ok(text)
}

/// A port outside the range of outgoing connections, which could take it while a container restarts.
fn free_port() -> anyhow::Result<TcpListener> {
    for _ in 0..500 {
        let port = 12_000 + u16::try_from(Uuid::new_v4().as_u128() % 20_000)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            return Ok(listener);
        }
    }
    bail!("no free port")
}
