//! `entry`: HAProxy with the configuration of compose, in front of native services; and clients that send bodies that are too large, with
//! and without it.

mod haproxy;
mod limits;
mod trust;

use std::process::Command;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service};
use serde_json::Value;

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders};

pub(crate) use haproxy::Entry;

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
    let entry = Entry::start(&orders, &orders, &[]).await?;
    every_client_is_told(&entry.orders).await
}

#[tokio::test]
async fn what_the_entry_answers_by_itself_is_in_the_form_of_the_services() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[FetchBuyOrders])).await?;
    let nowhere = cluster.url(CreateBuyOrder);
    let entry = Entry::start(&nowhere, &cluster.url(FetchBuyOrders), &[]).await?;
    for (status, url) in [
        (404, format!("{}/elsewhere", entry.health)),
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
