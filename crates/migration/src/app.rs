//! Starts the service, or migrates once.

use common::database;
use common::http;
use common::readiness::Readiness;
use common::service::{self, Lifecycle, Outcome};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::config::Config;
use crate::schema::{self, Model};

/// Bring the schemas of both models and the roles of the services up to date, then answer /healthcheck.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Exit when both schemas are up to date
    #[arg(long)]
    pub once: bool,
}

impl service::Arguments for Arguments {}

/// Migrates both databases concurrently. Waits for as long as they are away.
///
/// # Errors
/// A migration fails for a reason that is not transient.
pub async fn migrate_once(config: Config, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    match stopping.run_until_cancelled(migrate(&config)).await {
        Some(migrated) => migrated.map(|()| Outcome::Done),
        None => Ok(Outcome::NotDone),
    }
}

/// Migrates both databases, then serves `/healthcheck`. The port is not bound before: the other services are refused until the schemas are
/// up to date.
///
/// # Errors
/// As [`migrate_once`]; and when the port cannot be bound, or a pool cannot be built.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    migrate(&config).await?;
    let listener = http::bind(&config.listen).await?;
    let readiness = Readiness::default()
        .needs(
            Model::Write.name(),
            database::pool(&config.write_model)?.readable(),
        )
        .needs(Model::Read.name(), database::pool(&config.read_model)?.readable());
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
