//! Starts the service.

use std::process::ExitCode;
use std::sync::LazyLock;

use common::auth::Callers;
use common::readiness::Readiness;
use common::service::{self, Lifecycle};
use common::{database, http, migrations};

use crate::arrivals::Arrivals;
use crate::config::Config;
use crate::metrics::METRICS;
use crate::reader::Reader;
use crate::routes::{self, State};

/// Runs the service until it is asked to stop.
#[must_use]
pub fn run() -> ExitCode {
    service::run("fetch_buy_orders", Config::from_env, start)
}

/// Waits for the schema of the read model, then serves pages.
///
/// # Errors
/// When the port cannot be bound.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    let callers = Callers::start(config.auth, "orders:read", &lifecycle)?;
    migrations::wait(&config.migration).await?;
    let read_model = database::connect(&config.read_model, "read_model").await?;
    let readiness = Readiness::default().needs("read_model", read_model.readable());
    let readiness = callers.needed_by(readiness);
    let listener = http::bind(&config.listen).await?;
    let router = routes::router(
        State {
            callers,
            arrivals: Arrivals::new(read_model.clone()),
            reader: Reader::new(read_model),
        },
        readiness,
    );
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}
