//! Starts the service, or migrates once.

use std::future::ready;
use std::process::ExitCode;
use std::time::Duration;

use common::broker;
use common::database;
use common::http;
use common::readiness::Readiness;
use common::service::{self, Lifecycle, Outcome};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::config::Config;
use crate::schema::{self, Model};
use crate::topology::{self, Keeper};

/// How long the start waits for the broker. The services need not wait a second time for what is declared by then. Orders are accepted
/// without the broker, so its absence must not delay the start for long.
const BROKER_WAIT: Duration = Duration::from_secs(3);

/// Bring the schemas of both models, the roles of the services and the queues up to date, then answer /healthcheck.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// Exit when all of it is up to date
    #[arg(long)]
    once: bool,
}

impl service::Arguments for Arguments {}

/// Runs the service, or migrates once.
#[must_use]
pub fn run() -> ExitCode {
    service::run_cli("migration", |arguments: Arguments| {
        if arguments.once {
            service::run_admin("migration", Config::from_env, migrate_once)
        } else {
            service::serve("migration", Config::from_env, start)
        }
    })
}

/// Migrates both databases concurrently, then declares the queues. Waits for as long as one of the servers is away.
///
/// # Errors
/// A migration fails for a reason that is not transient.
async fn migrate_once(config: Config, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    match stopping.run_until_cancelled(migrate(&config)).await {
        Some(migrated) => migrated?,
        None => return Ok(Outcome::NotDone),
    }
    if let Some(queue) = config.queue {
        match topology::supervisor(queue, stopping).connect().await {
            Some(session) => session.close().await,
            None => return Ok(Outcome::NotDone),
        }
    }
    Ok(Outcome::Done)
}

/// Migrates both databases, then serves `/healthcheck`. The port is not bound before: the other services are refused until the schemas are
/// up to date. Declares the queues, and goes on declaring them.
///
/// # Errors
/// As [`migrate_once`]; and when the port cannot be bound, or a pool cannot be built.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    migrate(&config).await?;
    let mut readiness = Readiness::default()
        .needs(
            Model::Write.name(),
            database::pool(&config.write_model)?.readable(),
        )
        .needs(Model::Read.name(), database::pool(&config.read_model)?.readable());
    if let Some(queue) = config.queue {
        readiness = readiness.needs("broker", || ready(broker::state(topology::CONNECTION)));
        let mut supervisor = topology::supervisor(queue, lifecycle.stopping());
        let first = timeout(BROKER_WAIT, supervisor.connect()).await;
        let mut keeper = Keeper {
            stopping: lifecycle.stopping(),
        };
        lifecycle.spawn("topology", async move {
            supervisor.run(first.ok().flatten(), &mut keeper).await;
            Ok(())
        });
    }
    let listener = http::bind(&config.listen).await?;
    let routes = http::routes(axum::Router::new(), ApiDoc::openapi(), readiness);
    lifecycle.spawn("http", http::serve(listener, routes, lifecycle.stopping()));
    Ok(())
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    tokio::try_join!(
        schema::bring_up_to_date(Model::Write, &config.write_model, &config.write_model_roles),
        schema::bring_up_to_date(Model::Read, &config.read_model, &config.read_model_roles),
    )?;
    Ok(())
}

/// For `/openapi.json` and `/docs`; the title and the description are the crate's.
#[derive(OpenApi)]
struct ApiDoc;
