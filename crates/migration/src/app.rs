//! What the process does, from start to serving.

use common::http::{self, Readiness};
use common::service::Lifecycle;
use utoipa::OpenApi;

use crate::config::Config;
use crate::schema::{self, Model};

/// The argument that makes the process exit once both schemas are up to date.
pub const ONCE: &str = "--once";

/// Migrates both databases at the same time, however long they are away; then serves `/healthcheck`, or ends where [`ONCE`] was given.
///
/// The port is not bound before: whoever waits for the migrations is refused until they are there.
///
/// # Errors
/// A migration that waiting cannot mend, or a port that cannot be bound.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    tokio::try_join!(
        schema::bring_up_to_date(Model::Write, &config.write_model),
        schema::bring_up_to_date(Model::Read, &config.read_model),
    )?;
    if lifecycle.has_flag(ONCE) {
        lifecycle.stop();
        return Ok(());
    }
    let listener = http::bind(&config.listen).await?;
    let readiness = Readiness::default()
        .needs_database(Model::Write.name(), &config.write_model)
        .needs_database(Model::Read.name(), &config.read_model);
    let routes = http::routes(axum::Router::new(), ApiDoc::openapi(), readiness);
    lifecycle.spawn("http", http::serve(listener, routes, lifecycle.stopping()));
    Ok(())
}

/// For `/openapi.json` and `/docs`; the title and the description are the crate's.
#[derive(OpenApi)]
struct ApiDoc;
