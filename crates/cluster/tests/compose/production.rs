//! `docker-compose.production.yml`: what it refuses to hand out, seen from outside and from inside each container.

mod attacks;
mod reach;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::issuer::{ALL_SCOPES, AUDIENCE, ISSUER, SigningKey, claims, jwks};
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

fn secrets(folder: &TempDir) -> PathBuf {
    folder.path().join("secrets")
}
