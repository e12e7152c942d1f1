//! The whole cluster behind PgBouncer in transaction mode: that of Debian trixie, configured by docs/pgbouncer.ini.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, DatabaseAddress, Options, PortLease, Service, wait_until};
use futures_util::future::try_join_all;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A PgBouncer in front of both databases of a cluster.
struct PgBouncer {
    process: Child,
    port: u16,
    _lease: PortLease,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts it with our file, changed by `change`.
    async fn start(cluster: &Cluster, change: impl FnOnce(String) -> String) -> anyhow::Result<Self> {
        let (lease, folder) = (PortLease::take()?, TempDir::new()?);
        let users = folder.path().join("userlist.txt");
        let addresses = cluster.addresses();
        let models = [
            ("write_model", &addresses.write_model),
            ("read_model", &addresses.read_model),
        ];
        let mut roles = BTreeSet::new();
        for service in Service::OF_ORDERS {
            let mut environment = cluster.environment(service)?;
            for model in ["WRITE_MODEL", "READ_MODEL"] {
                let mut variable = |name: &str| environment.remove(&format!("{model}_DB_{name}"));
                let login = variable("USER").zip(variable("PWD"));
                roles.extend(login.map(|(user, password)| format!("\"{user}\" \"{password}\"\n")));
            }
        }
        std::fs::write(&users, roles.into_iter().collect::<String>())?;

        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut settings = std::fs::read_to_string(root.join("docs/pgbouncer.ini"))?;
        for (model, address) in models {
            let ours = format!("\n{model} = host={model} port=5432 dbname={model} ");
            ensure!(
                settings.contains(&ours),
                "{model} is not where it was in docs/pgbouncer.ini"
            );
            let DatabaseAddress { host, port, name, .. } = address;
            // Both databases have the same name in tests.
            let there = format!("\n{model}_{name} = host={host} port={port} dbname={name} ");
            settings = settings.replace(&ours, &there);
        }
        let settings = settings
            .replace(
                "listen_port = 6432",
                &format!("listen_port = {}\nunix_socket_dir =", lease.port()),
            )
            .replace("/etc/pgbouncer/userlist.txt", &users.display().to_string());
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, change(settings))?;

        let mut command = if rustix::process::geteuid().is_root() {
            // It does not run as root.
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
            command.arg(program(&root)?);
            for path in [folder.path(), &users, &file] {
                std::os::unix::fs::chown(path, Some(65534), Some(65534))?;
            }
            command
        } else {
            Command::new(program(&root)?)
        };
        let process = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let started = Self {
            process,
            port: lease.port(),
            _lease: lease,
            _folder: folder,
        };
        wait_until("PgBouncer listens", LIMIT, async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", started.port))
                .await
                .is_ok())
        })
        .await?;
        Ok(started)
    }

    /// Makes all services connect through it.
    fn lead(&self, cluster: &Cluster) {
        let addresses = cluster.addresses();
        for service in Service::OF_ORDERS {
            for (prefix, address) in [
                ("WRITE_MODEL", &addresses.write_model),
                ("READ_MODEL", &addresses.read_model),
            ] {
                let name = format!("{}_{}", prefix.to_lowercase(), address.name);
                cluster.set_env(service, &format!("{prefix}_DB_PORT"), &self.port.to_string());
                cluster.set_env(service, &format!("{prefix}_DB_NAME"), &name);
            }
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(root: &Path) -> anyhow::Result<PathBuf> {
    let ensured = Command::new(root.join("scripts/ensure_pgbouncer.sh")).output()?;
    ensure!(
        ensured.status.success(),
        "{}",
        String::from_utf8_lossy(&ensured.stderr)
    );
    Ok(String::from_utf8(ensured.stdout)?.trim().into())
}

async fn empty_databases() -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        services: Vec::new(),
        migrated: false,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn the_cluster_works_behind_pgbouncer_that_lends_connections_by_the_transaction() -> anyhow::Result<()>
{
    const ORDERS: usize = 60;
    let cluster = empty_databases().await?;
    let pooler = PgBouncer::start(&cluster, |settings| settings).await?;
    pooler.lead(&cluster);
    // Repeated, because a lock that is left on a connection would block the next run on another connection.
    for _ in 0..3 {
        let ended = cluster.admin(Service::Migration, &["--once"], "").await?;
        ensure!(ended.code == Some(0), "{ended:?}");
    }
    for service in Service::OF_ORDERS {
        cluster.start_service(service).await?;
    }
    let orders = (0..ORDERS).map(|_| {
        let sent = cluster.put_order(&cluster::new_order("USD", "1")).send();
        async move { anyhow::Ok(sent.await?.status().as_u16()) }
    });
    let statuses = try_join_all(orders).await?;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let page = cluster.url(Service::FetchBuyOrders) + "/buy_orders?page_size=1000";
    wait_until("all orders are shown", LIMIT, async || {
        let page: Value = cluster.http().get(&page).send().await?.json().await?;
        Ok(page["rows"].as_array().context("no rows")?.len() == ORDERS)
    })
    .await?;
    for service in Service::OF_ORDERS {
        let ready = cluster
            .http()
            .get(cluster.url(service) + "/readyz")
            .send()
            .await?;
        assert_eq!(ready.status(), 200, "{service:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_pooler_cannot_do_is_told_at_the_start_instead_of_working_without() -> anyhow::Result<()> {
    let cluster = empty_databases().await?;
    let whole = PgBouncer::start(&cluster, |settings| settings).await?;
    whole.lead(&cluster);
    cluster.start_service(Service::Migration).await?;
    let without = |part: &'static str| {
        move |settings: String| {
            let lines = settings.lines().filter(|line| !line.starts_with(part));
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    let no_limits = |settings: String| settings.replace("SET statement_timeout = ''10s'';", "");
    let loses =
        |settings: String| settings.replace("max_prepared_statements = 200", "max_prepared_statements = 0");
    for (pooler, told) in [
        (
            PgBouncer::start(&cluster, no_limits).await?,
            "statement_timeout is '0' instead of '10s'",
        ),
        (
            PgBouncer::start(&cluster, loses).await?,
            "loses prepared statements",
        ),
        (
            PgBouncer::start(&cluster, without("ignore_startup_parameters")).await?,
            "have it ignore options",
        ),
    ] {
        pooler.lead(&cluster);
        cluster.launch(Service::CreateBuyOrder)?;
        wait_until(told, LIMIT, async || {
            let events = cluster.logs(Service::CreateBuyOrder);
            let telling = |event: &&Value| {
                event["event"] == "failed_to_connect_to_database"
                    && event["error"].as_str().is_some_and(|error| error.contains(told))
            };
            Ok(events.iter().find(telling).is_some())
        })
        .await?;
        cluster.stop(Service::CreateBuyOrder).await?;
    }
    Ok(())
}
