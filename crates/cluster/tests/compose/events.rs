//! The event log.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::black_box::System;
use crate::project::Project;

const TAG: &str = "pydist.create_buy_order.buy_order_created";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn events_arrive_at_the_log(project: &Project, system: &System) -> anyhow::Result<()> {
    let order = system.place("USD", "0.41").await?;
    let log = project.containers(Some("log"))?.pop().context("no log")?;
    cluster::wait_until("the log has the event of an order", LIMIT, async || {
        let lines = log.logs()?;
        let mut events = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.any(|event| event["tag"] == TAG && event["external_id"] == order["id"]))
    })
    .await
}

pub(crate) async fn the_entry_logs_each_request(project: &Project, system: &System) -> anyhow::Result<()> {
    let id = uuid::Uuid::new_v4().to_string();
    let url = format!("{}/buy_orders", system.fetch_buy_orders);
    let answer = system.http.get(url).header("X-Request-Id", &id).send().await?;
    anyhow::ensure!(answer.status() == 200, "{answer:?}");
    let lines_of_request = |service: &str| {
        let mut lines = lines_of(project, service)?;
        lines.retain(|line| line["request_id"] == id.as_str());
        anyhow::Ok(lines)
    };
    cluster::wait_until("entry and service log the client's address", LIMIT, async || {
        let of_entry = lines_of_request("entry")?;
        let of_entry = of_entry.iter().find(|line| line["path"] == "/buy_orders");
        let client = &of_entry.context("not yet")?["client"];
        let of_service = lines_of_request("fetch_buy_orders")?;
        let mut of_service = of_service.iter();
        Ok(of_service
            .any(|line| line["event"] == "buy_orders_page_requested" && line["client_address"] == *client))
    })
    .await
}

/// The JSON lines that a service has written.
fn lines_of(project: &Project, service: &str) -> anyhow::Result<Vec<Value>> {
    let container = project.containers(Some(service))?.pop();
    let text = container.context("no container")?.logs()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(lines.collect())
}
