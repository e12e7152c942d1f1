//! The dashboards and the alert rules fit the metrics of a real cluster: scripts/check_observability.py, which is given two replicas of each
//! service while orders flow, evaluates every expression by a real Prometheus. Then the broker is stopped, and an alert comes and goes.
#![allow(missing_docs, reason = "tests")]

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster::{Cluster, DatabaseAddress, Options, PortLease, Service};
use sqlx::PgPool;

const SCRIPT: &str = "scripts/check_observability.py";
const MONITOR: &str = "monitor";
const PASSWORD: &str = "monitor_password";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_rule_has_data_and_an_alert_fires_and_resolves() -> anyhow::Result<()> {
    let broker_metrics = PortLease::take()?;
    let cluster =
        Arc::new(Cluster::start(Options::default().with_broker_metrics(broker_metrics.port())).await?);
    let mut arguments = vec![format!("--broker=127.0.0.1:{}", broker_metrics.port())];
    for service in Service::OF_ORDERS {
        for url in [cluster.url(service), cluster.start_extra(service).await?] {
            let target = url.trim_start_matches("http://");
            arguments.push(format!("--target={}={target}", service.name()));
        }
    }
    for (model, pool, address) in [
        (
            "write_model",
            cluster.write_model(),
            &cluster.addresses().write_model,
        ),
        (
            "read_model",
            cluster.read_model(),
            &cluster.addresses().read_model,
        ),
    ] {
        make_monitor(pool).await?;
        let DatabaseAddress { host, port, name, .. } = address;
        arguments.push(format!("--database={model}={host}:{port}/{name}"));
    }
    let orders = tokio::spawn(order_and_read(Arc::clone(&cluster)));
    let mut check = Check::start(&arguments)?;
    // The script waits for a line where something is to be done to the cluster.
    tokio::task::block_in_place(|| check.wait_for("every expression has data"))?;
    cluster.stop_broker().await?;
    check.say("the broker is stopped")?;
    tokio::task::block_in_place(|| check.wait_for("the alert fires"))?;
    cluster.start_broker().await?;
    check.say("the broker is started")?;
    tokio::task::block_in_place(|| check.wait_for("the alert is resolved"))?;
    orders.abort();
    tokio::task::block_in_place(|| check.finish())
}

/// The login of the exporter, as docker-compose.observability.yml makes it.
async fn make_monitor(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    sqlx::query(
        "SELECT set_config('pydist.monitor', $1, false), set_config('pydist.monitor_password', $2, false)",
    )
    .bind(MONITOR)
    .bind(PASSWORD)
    .execute(&mut *connection)
    .await?;
    sqlx::raw_sql(include_str!("../../../docker/postgres/monitor.sql"))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Orders and pages, at all replicas, until it is aborted. Some fail while the broker is stopped and started.
async fn order_and_read(cluster: Arc<Cluster>) {
    let replicas = |service| {
        let mut urls = cluster.extras(service);
        urls.push(cluster.url(service));
        urls
    };
    loop {
        for url in replicas(Service::CreateBuyOrder) {
            let order = cluster::new_order("USD", "1");
            let put = cluster.http().put(url + "/buy_order").json(&order).send().await;
            let position = put
                .ok()
                .and_then(|answer| answer.headers().get("order-position").cloned());
            for url in replicas(Service::FetchBuyOrders) {
                let mut get = cluster.http().get(url + "/buy_orders");
                if let Some(position) = &position {
                    get = get.header("order-position", position);
                }
                let _ = get.send().await;
            }
        }
        for url in replicas(Service::BtcPrice) {
            let _ = cluster.http().get(url + "/buy?currency=USD").send().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The script, which runs Prometheus, Alertmanager and the exporters. It ends, and they with it, when its standard input is closed.
struct Check {
    process: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said so far, for the message of a failure.
    said: String,
}

impl Check {
    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut process = Command::new("python3")
            .arg(root.join(SCRIPT))
            .args(arguments)
            .env("MONITOR_DB_USER", MONITOR)
            .env("MONITOR_DB_PWD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("python3 is missing")?;
        let output = process.stdout.take().context("no output")?;
        Ok(Self {
            input: process.stdin.take(),
            lines: BufReader::new(output).lines(),
            said: String::new(),
            process,
        })
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the script has no input")?;
        writeln!(input, "{line}").context("the script has ended")
    }

    fn wait_for(&mut self, wanted: &str) -> anyhow::Result<()> {
        for line in self.lines.by_ref() {
            let line = line?;
            if line == wanted {
                return Ok(());
            }
            self.said += &line;
            self.said.push('\n');
        }
        let said = self.everything_said();
        bail!("{SCRIPT} ended before it said '{wanted}':\n{said}")
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let status = self.process.wait()?;
        if !status.success() {
            let said = self.everything_said();
            bail!("{SCRIPT}: {status}\n{said}");
        }
        Ok(())
    }

    fn everything_said(&mut self) -> String {
        let mut text = self.said.clone();
        if let Some(errors) = &mut self.process.stderr {
            let _ = errors.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Check {
    /// After a failed test, too.
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}
