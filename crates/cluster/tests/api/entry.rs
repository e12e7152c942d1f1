//! `entry`: HAProxy with the configuration of compose, in front of native services; and clients that send bodies that are too large, with
//! and without it.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// HAProxy, until this is dropped.
struct Entry {
    process: Child,
    _folder: tempfile::TempDir,
    orders: String,
    pages: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Entry {
    /// The configuration of compose, with other ports and without names that only Docker resolves.
    async fn start(cluster: &Cluster, orders: &str, pages: &str) -> anyhow::Result<Self> {
        let ports = [cluster::PortLease::take()?, cluster::PortLease::take()?].map(|lease| lease.port());
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker/entry/haproxy.cfg");
        let mut text = fs::read_to_string(ours)?;
        for (here, there) in [
            ("bind :8777", format!("bind 127.0.0.1:{}", ports[0])),
            ("bind :8778", format!("bind 127.0.0.1:{}", ports[1])),
            (
                "init-addr none resolvers docker",
                "init-addr last,libc,none".to_owned(),
            ),
        ] {
            ensure!(text.contains(here), "{here} is not in {ours}");
            text = text.replace(here, &there);
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text)?;
        let process = Command::new(if fs::exists("/usr/sbin/haproxy")? {
            "/usr/sbin/haproxy"
        } else {
            "haproxy"
        })
        .env("CREATE_BUY_ORDER", orders.trim_start_matches("http://"))
        .env("FETCH_BUY_ORDERS", pages.trim_start_matches("http://"))
        .args(["-db", "-f"])
        .arg(&file)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("haproxy is missing: scripts/ensure_servers.sh --for-tests")?;
        let url = |port| format!("http://127.0.0.1:{port}");
        let entry = Self {
            process,
            _folder: folder,
            orders: url(ports[0]),
            pages: url(ports[1]),
        };
        let http = cluster.http();
        wait_until("entry answers", LIMIT, async || {
            Ok(http.get(&entry.orders).send().await.is_ok())
        })
        .await?;
        Ok(entry)
    }
}

/// Clients in other languages send bodies that are too large. Each must get the answer.
async fn every_client_is_told(url: &str) -> anyhow::Result<()> {
    const TIMES: &str = "3";
    let url = format!("{url}/buy_order");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api");
    for (program, script) in [
        ("/usr/bin/python3", "large_bodies.py"),
        ("node", "large_bodies.mjs"),
    ] {
        let mut command = Command::new(program);
        command.arg(format!("{folder}/{script}")).args([&url, TIMES]);
        let ran = tokio::task::spawn_blocking(move || command.output()).await??;
        let lines = String::from_utf8(ran.stdout)?;
        ensure!(
            ran.status.success() && lines.lines().count() >= 9,
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        for line in lines.lines() {
            ensure!(
                line.ends_with(": 413 the body is larger than 16384 bytes"),
                "at {url}:\n{lines}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_far_too_large_is_refused_so_that_every_client_sees_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[BtcPrice, CreateBuyOrder])).await?;
    let orders = cluster.url(CreateBuyOrder);
    every_client_is_told(&orders).await?;
    let entry = Entry::start(&cluster, &orders, &orders).await?;
    every_client_is_told(&entry.orders).await
}

#[tokio::test]
async fn what_the_entry_answers_by_itself_is_in_the_form_of_the_services() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[FetchBuyOrders])).await?;
    let nowhere = cluster.url(CreateBuyOrder);
    let entry = Entry::start(&cluster, &nowhere, &cluster.url(FetchBuyOrders)).await?;
    for (status, url) in [
        (404, format!("{}/metrics", entry.pages)),
        (404, format!("{}/readyz", entry.orders)),
        (503, format!("{}/healthcheck", entry.orders)),
    ] {
        let answer = cluster.http().get(&url).send().await?;
        let id = answer.headers().get("x-request-id").cloned();
        let id = id.and_then(|id| uuid::Uuid::try_parse(id.to_str().ok()?).ok());
        ensure!(answer.status() == status && id.is_some(), "{url}: {answer:?}");
        let body: Value = answer.json().await.with_context(|| url.clone())?;
        ensure!(body["detail"].is_string(), "{url}: {body}");
    }
    Ok(())
}
