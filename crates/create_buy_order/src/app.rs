//! Puts the service together.

use std::sync::Arc;

use common::service::Lifecycle;
use common::{database, http, migrations};
use tokio::sync::Notify;

use crate::batch;
use crate::config::Config;
use crate::outbox;
use crate::price::Prices;
use crate::routes::{State, router};

/// Waits for the write model and its schema, then serves requests and relays the outbox. The broker is not waited for: orders are
/// accepted while it is away.
///
/// # Errors
/// When the port cannot be bound or an HTTP client cannot be built.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let pool = database::connect(&config.write_model, "write_model").await;
    migrations::wait(&config.migration).await?;

    let outbox_grew = Arc::new(Notify::new());
    let (orders, writer) = batch::writer(pool.clone(), Arc::clone(&outbox_grew));
    let state = State {
        pool: pool.clone(),
        prices: Prices::new(&config.btc_price)?,
        orders,
    };
    let listener = http::bind(&config.listen).await?;

    lifecycle.spawn("http", http::serve(listener, router(state), lifecycle.stopping()));
    // Ends by itself when the last request that may still send it an order is answered.
    lifecycle.spawn("order_writer", writer);
    lifecycle.spawn(
        "outbox_relay",
        outbox::relay(pool, config.queue, outbox_grew, lifecycle.stopping()),
    );
    Ok(())
}
