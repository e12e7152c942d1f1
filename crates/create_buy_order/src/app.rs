//! Start-up.

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use common::auth::Callers;
use common::endpoints::Database;
use common::env::Env;
use common::readiness::Readiness;
use common::service::{self, Lifecycle};
use common::{database, http, migrations};
use tokio::sync::Notify;

use crate::NAME;
use crate::arguments::{Arguments, Command};
use crate::batch;
use crate::checksums;
use crate::config::Config;
use crate::limits;
use crate::look_up::LookUp;
use crate::metrics::{METRICS, watch_write_model};
use crate::price::Prices;
use crate::relay;
use crate::republish;
use crate::routes::{State, router};
use crate::void;

/// Runs the service, or the command that the command line names.
#[must_use]
pub fn run() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, Config::from_env, start),
        Some(Command::Republish(options)) => {
            service::run_admin(NAME, republish::Config::from_env, |config, stopping| {
                republish::run(config, options, stopping)
            })
        }
        Some(Command::Void(options)) => service::run_admin(NAME, write_model, |config, stopping| {
            void::run(config, options, stopping)
        }),
        Some(Command::Checksums(options)) => service::run_admin(NAME, write_model, |config, stopping| {
            checksums::run(config, options, stopping)
        }),
    })
}

/// All that some commands need to be told.
fn write_model(env: &mut Env) -> Database {
    Database::from_env(env, "WRITE_MODEL_DB")
}

/// Waits for the schema of the write model, then serves requests and relays the outbox. It does not wait for the broker: orders are accepted
/// while the broker is away.
///
/// # Errors
/// When the port cannot be bound or an HTTP client cannot be built.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    config.limits.report_absent();
    let callers = Callers::start(config.auth, "orders:write", &lifecycle)?;
    migrations::wait(&config.migration).await?;
    let pool = database::connect(&config.write_model, "write_model").await?;
    if config.limits.per_client.is_some() && !limits::count_orders(&pool, &lifecycle.stopping()).await? {
        return Ok(());
    }
    let readiness = Readiness::default().needs("write_model", pool.writable());
    let readiness = callers.needed_by(readiness);

    let outbox_grew = Arc::new(Notify::new());
    lifecycle.spawn(
        "outbox_relay",
        relay::run(
            pool.clone(),
            config.queue,
            Arc::clone(&outbox_grew),
            lifecycle.stopping(),
        ),
    );

    lifecycle.spawn("gauges", watch_write_model(pool.clone(), lifecycle.stopping()));
    let (orders, writer) = batch::writer(pool.clone(), outbox_grew, config.limits.per_client);
    let state = State {
        callers,
        look_up: LookUp::new(pool),
        prices: Prices::new(&config.btc_price)?,
        limits: config.limits,
        orders,
    };
    let listener = http::bind(&config.listen).await?;

    lifecycle.spawn(
        "http",
        http::serve(listener, router(state, readiness), lifecycle.stopping()),
    );
    // Ends when the last handle is dropped, that is when no request can send it an order any more.
    lifecycle.spawn("order_writer", writer);
    Ok(())
}
