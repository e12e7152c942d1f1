//! The OpenAPI documents describe the services correctly: schemathesis makes valid and invalid requests from them, and checks every answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;

const SCRIPT: &str = "scripts/check_openapi.sh";

#[tokio::test]
async fn what_the_services_answer_is_what_their_documents_say() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let position = place_orders(&cluster).await?;
    let documents = [
        Service::CreateBuyOrder,
        Service::FetchBuyOrders,
        Service::BtcPrice,
    ]
    .map(|service| cluster.url(service) + "/openapi.json");
    let checked = tokio::task::spawn_blocking(move || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::process::Command::new(root.join(SCRIPT))
            .args(documents)
            .env("ORDER_POSITION", position)
            .current_dir(root)
            .output()
            .context(SCRIPT)
    });
    let checked = checked.await??;
    ensure!(
        checked.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
    Ok(())
}

/// Orders, so that pages have rows and links to next pages. Returns the `Order-Position` of the last one.
async fn place_orders(cluster: &Cluster) -> anyhow::Result<String> {
    let mut position = None;
    for _ in 0..3 {
        let put = cluster.put_order(&cluster::new_order("USD", "1"));
        let answer = put.send().await?.error_for_status()?;
        position = answer.headers().get("order-position").cloned();
    }
    let pages = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
    wait_until(
        "the orders are on the pages",
        Duration::from_secs(60),
        async || {
            let page: Value = cluster.http().get(&pages).send().await?.json().await?;
            Ok(page["rows"].as_array().is_some_and(|rows| rows.len() == 3))
        },
    )
    .await?;
    Ok(position.context("no position")?.to_str()?.to_owned())
}
