//! How the service is put together.

use std::sync::LazyLock;

use common::http::client::client;
use common::http::{self, Readiness};
use common::service::Lifecycle;

use crate::coinbase::Coinbase;
use crate::config::Config;
use crate::metrics::METRICS;
use crate::quote::Quotes;
use crate::routes;

/// Starts to answer. Coinbase is not asked before the first client asks.
///
/// # Errors
///
/// `EXTRA_CA_FILE` is not usable, or the address to listen on is taken.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    let client = client(config.coinbase_timeout, config.extra_ca.as_deref())?;
    let quotes = Quotes::new(Coinbase::new(client, config.coinbase), config.quote_max_age);
    let listener = http::bind(&config.listen).await?;
    let judged = quotes.clone();
    let readiness = Readiness::default().needs("coinbase", move || std::future::ready(judged.judge()));
    let router = http::routes(routes::router(quotes), routes::openapi(), readiness);
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}
