//! Family 5, continued: what administrators do to a database while services use it, and later undo.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Administrator, Cluster, Options, Server, Service, wait_until};

use crate::ledger::Outcome;
use crate::scenario::Scenario;
use crate::stage::{Stage, readiness};
use crate::violations::Invariant;

/// How long a change lasts.
const CHANGED: Duration = Duration::from_secs(5);

/// Readiness is checked at most once a second, and each dependency has a moment to answer.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

/// Includes the pauses between attempts while a dependency is away.
const STARTED_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn scenarios() -> Vec<Scenario> {
    [
        (Server::WriteModel, "write_model"),
        (Server::ReadModel, "read_model"),
    ]
    .into_iter()
    .map(|(server, name)| {
        let title = format!("administered-{}", name.replace('_', "-"));
        Scenario::new(5, title, move |stage| Box::pin(administered(stage, server, name)))
            .with_options(Options::default().with_own_servers())
    })
    .collect()
}

#[derive(Debug, Clone, Copy)]
enum Change {
    ReadOnly,
    Password,
    Name,
}

impl Change {
    const ALL: [Self; 3] = [Self::ReadOnly, Self::Password, Self::Name];

    fn kind(self) -> &'static str {
        match self {
            Self::ReadOnly => "PostgreSQL: read-only",
            Self::Password => "PostgreSQL: another password, sessions ended",
            Self::Name => "PostgreSQL: database renamed",
        }
    }

    async fn make(self, administrator: &mut Administrator) -> anyhow::Result<()> {
        match self {
            Self::ReadOnly => administrator.set_read_only(true).await,
            Self::Password => administrator.set_password(false).await,
            Self::Name => administrator.set_renamed(true).await,
        }
    }

    async fn undo(self, administrator: &mut Administrator) -> anyhow::Result<()> {
        match self {
            Self::ReadOnly => administrator.set_read_only(false).await,
            Self::Password => administrator.set_password(true).await,
            Self::Name => administrator.set_renamed(false).await,
        }
    }

    /// The services that cannot work meanwhile. A read-only database still serves pages.
    fn unready(self, server: Server) -> &'static [Service] {
        match (server, self) {
            (Server::WriteModel, _) => &[Service::CreateBuyOrder],
            (_, Self::ReadOnly) => &[Service::ReadModelSync],
            _ => &[Service::ReadModelSync, Service::FetchBuyOrders],
        }
    }
}

async fn administered(stage: &mut Stage, server: Server, name: &str) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let mut administrator = cluster.administrator(server).await?;
    for change in Change::ALL {
        let index = stage.faults.len();
        let mut reported = Ok(());
        let changed = async {
            change.make(&mut administrator).await?;
            reported = wait_until_reported(&cluster, change, server, name).await;
            Stage::last(CHANGED).await;
            change.undo(&mut administrator).await
        };
        if server == Server::WriteModel {
            stage.fault(change.kind(), name, changed).await?;
            ensure_orders_failed(stage, index)?;
        } else {
            stage.harmless_fault(change.kind(), name, changed).await?;
        }
        if let Err(why) = reported {
            let what = format!("{} {name}: {why:#}", change.kind());
            stage.shared.violations.add(Invariant::I13, what);
        }
    }
    start_while_read_only(stage, &mut administrator, name).await
}

/// Waits until the services that cannot work report it at `/readyz`, with the reason.
async fn wait_until_reported(
    cluster: &Cluster,
    change: Change,
    server: Server,
    name: &str,
) -> anyhow::Result<()> {
    for service in change.unready(server) {
        let mut said = (0, String::new());
        let told = wait_until("its /readyz says 503", REPORTED_WITHIN, async || {
            said = readiness(cluster, *service).await?;
            Ok(said.0 == 503 && names(&said.1, change, name))
        });
        told.await
            .with_context(|| format!("{} says {said:?}", service.name()))?;
    }
    Ok(())
}

/// Whether the text names the database and does not call a read-only one away: an operator would look in the wrong place.
fn names(text: &str, change: Change, name: &str) -> bool {
    text.contains(name)
        && match change {
            Change::ReadOnly => !text.contains(&format!("{name} is away")),
            Change::Password | Change::Name => true,
        }
}

/// Checks that orders were not accepted meanwhile: otherwise there was no fault.
fn ensure_orders_failed(stage: &Stage, index: usize) -> anyhow::Result<()> {
    let entries = stage.shared.ledger.entries();
    entries
        .iter()
        .any(|entry| entry.fault == Some(index) && matches!(entry.outcome, Outcome::Unknown(_)))
        .then_some(())
        .context("all orders were accepted meanwhile")
}

/// With nothing to migrate, `migration` and `fetch_buy_orders` must start on a read-only database and serve pages.
async fn start_while_read_only(
    stage: &mut Stage,
    administrator: &mut Administrator,
    name: &str,
) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let mut served = Ok(());
    let started = async {
        Change::ReadOnly.make(administrator).await?;
        for service in [Service::Migration, Service::FetchBuyOrders] {
            cluster.stop(service).await?;
            cluster.launch(service)?;
        }
        let pages = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
        served = wait_until("pages are served", STARTED_WITHIN, async || {
            let page = cluster.http().get(&pages).send().await?;
            Ok(page.status().is_success())
        })
        .await;
        Change::ReadOnly.undo(administrator).await?;
        // A service that has given up is restarted, as its supervisor would do.
        for service in [Service::Migration, Service::FetchBuyOrders] {
            if cluster.vitals(service).is_err() {
                cluster.launch(service)?;
            }
        }
        Ok(())
    };
    stage
        .fault(
            "PostgreSQL: read-only, and what serves pages started meanwhile",
            name,
            started,
        )
        .await?;
    if let Err(why) = served {
        let what = format!("started while the {name} is read-only: {why:#}");
        stage.shared.violations.add(Invariant::I8, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_database_is_not_reported_as_away() {
        let says = |text, change| names(text, change, "read_model");
        assert!(says("not ready: read_model is read-only", Change::ReadOnly));
        assert!(!says("not ready: read_model is away", Change::ReadOnly));
        assert!(!says("not ready: write_model is read-only", Change::ReadOnly));
        assert!(says("not ready: read_model is away", Change::Password));
        assert!(!says("ready", Change::Name));
    }
}
