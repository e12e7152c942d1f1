//! More replicas behind the same two ports.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use crate::black_box::{Pages as _, System};
use crate::part;
use crate::project::Project;

const LIMIT: Duration = Duration::from_secs(60);

/// The scaled services, their replicas, and the event of a request.
const SCALED: [(&str, usize, &str); 2] = [
    ("fetch_buy_orders", 3, "buy_orders_page_requested"),
    ("create_buy_order", 2, "create_buy_order_request_received"),
];

pub(crate) async fn more_replicas_share_the_requests(
    project: &Project,
    system: &System,
) -> anyhow::Result<()> {
    let scales = SCALED.map(|(service, replicas, _)| format!("{service}={replicas}"));
    let arguments = ["--scale", &scales[0], "--scale", &scales[1]];
    part("`up --scale` adds replicas", project.up(system, &arguments)).await?;
    part(
        "every replica gets requests",
        every_replica_gets_requests(project, system),
    )
    .await
}

async fn every_replica_gets_requests(project: &Project, system: &System) -> anyhow::Result<()> {
    for (service, replicas, _) in SCALED {
        let found = project.containers(Some(service))?.len();
        ensure!(
            found == replicas,
            "{found} replicas of {service}, asked for {replicas}"
        );
    }
    let before = requests(project)?;
    cluster::wait_until("every replica got a request", LIMIT, async || {
        let mut placed = Vec::new();
        for _ in 0..12 {
            placed.push(system.place("USD", "0.42").await?);
            system.page("").await?.expect(200)?;
        }
        system.projected(&placed).await?;
        let now = requests(project)?;
        let idle: Vec<&String> = now
            .iter()
            .filter(|(id, count)| before.get(*id) == Some(count))
            .map(|(id, _)| id)
            .collect();
        ensure!(idle.is_empty(), "without a request: {idle:?}");
        Ok(true)
    })
    .await
}

/// How many requests each replica has reported.
fn requests(project: &Project) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut requests = BTreeMap::new();
    for (service, _, of_request) in SCALED {
        for replica in project.containers(Some(service))? {
            let lines = replica.logs()?;
            let events = lines
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let count = events.filter(|event| event["event"] == of_request).count();
            requests.insert(replica.name().to_owned(), count);
        }
    }
    Ok(requests)
}
