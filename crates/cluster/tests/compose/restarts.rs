//! A rolling restart of every container, while orders are placed and pages are read.

use anyhow::ensure;

use crate::black_box::System;
use crate::part;
use crate::project::{Project, docker};
use crate::traffic::{Tolerated, Traffic};

/// The services, and what clients may notice of their restart.
const SERVICES: [(&str, Tolerated); 12] = [
    // With more than one replica clients notice nothing.
    ("create_buy_order", Tolerated::Nothing),
    ("fetch_buy_orders", Tolerated::Nothing),
    // No request depends on these.
    ("log", Tolerated::Nothing),
    ("console", Tolerated::Nothing),
    ("migration", Tolerated::Nothing),
    ("read_model_sync", Tolerated::Nothing),
    ("queue", Tolerated::Nothing),
    // Orders need prices and the write model, pages need the read model.
    ("price_simulator", Tolerated::Refusals),
    ("btc_price", Tolerated::Refusals),
    ("write_model", Tolerated::Refusals),
    ("read_model", Tolerated::Refusals),
    // There is no replica of it.
    ("entry", Tolerated::Absence),
];

pub(crate) async fn a_restart_of_every_container_under_load_loses_and_doubles_no_order(
    project: &Project,
    system: &System,
) -> anyhow::Result<()> {
    let mut covered: Vec<&str> = SERVICES.iter().map(|(service, _)| *service).collect();
    covered.sort_unstable();
    let containers = project.containers(None)?;
    let mut present: Vec<&str> = containers.iter().map(|container| container.service()).collect();
    present.sort_unstable();
    present.dedup();
    ensure!(
        covered == present,
        "the services are {present:?}, this test restarts {covered:?}"
    );

    let traffic = Traffic::start(system);
    for (service, tolerated) in SERVICES {
        for container in project.containers(Some(service))? {
            let restart = async {
                docker(&["restart", container.id()])?;
                project.healthy(system).await
            };
            let name = format!("restart of {}", container.name());
            part(&name, traffic.during(tolerated, restart)).await?;
        }
    }
    part("every accepted order is on the pages, once", traffic.settle()).await
}
