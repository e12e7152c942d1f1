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
    let entry = project.containers(Some("entry"))?.pop().context("no entry")?;
    cluster::wait_until("the log of the entry has the request", LIMIT, async || {
        let lines = entry.logs()?;
        let mut lines = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.any(|line| line["request_id"] == id.as_str() && line["path"] == "/buy_orders"))
    })
    .await
}
