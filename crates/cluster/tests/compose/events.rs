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
