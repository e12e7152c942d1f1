//! Starts the service.

use std::sync::LazyLock;

use common::readiness::Readiness;
use common::service::Lifecycle;
use common::{database, http, migrations};

use crate::config::Config;
use crate::metrics::METRICS;
use crate::reader::Reader;
use crate::routes;

/// Waits for the schema of the read model, then serves pages.
///
/// # Errors
/// When the port cannot be bound.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    migrations::wait(&config.migration).await?;
    let read_model = database::connect(&config.read_model, "read_model").await?;
    let readiness = Readiness::default().needs("read_model", read_model.readable());
    let listener = http::bind(&config.listen).await?;
    let router = routes::router(Reader::new(read_model), readiness);
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}
