//! What the service is made of.

use std::sync::LazyLock;

use axum::Router;
use common::http::Readiness;
use common::service::Lifecycle;
use common::{database, http, migrations};
use utoipa::OpenApi;

use crate::config::Config;
use crate::metrics::METRICS;
use crate::projector::{CONNECTION, Projector};

/// Waits for the read model, its schema and the queue, then projects, and answers `/healthcheck`: healthy means that it has begun.
///
/// # Errors
/// When the port is taken, or no HTTP client can be made.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    let pool = database::connect(&config.read_model, "read_model").await?;
    let readiness = Readiness::default()
        .needs_writable_database("read_model", &pool)
        .needs_broker(CONNECTION);
    migrations::wait(&config.migration).await?;
    let mut projector = Projector::new(pool, config.queue, lifecycle.stopping());
    let Some(listening) = projector.listen().await else {
        return Ok(());
    };
    lifecycle.spawn("projector", projector.run(listening));

    let listener = http::bind(&config.listen).await?;
    let routes = http::routes(Router::new(), ApiDoc::openapi(), readiness);
    lifecycle.spawn("http", http::serve(listener, routes, lifecycle.stopping()));
    Ok(())
}

/// For `/openapi.json` and `/docs`; the title and the description are the crate's.
#[derive(OpenApi)]
struct ApiDoc;
