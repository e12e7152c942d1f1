//! Start-up.

use std::process::ExitCode;
use std::sync::LazyLock;

use common::http;
use common::http::client::client;
use common::readiness::Readiness;
use common::service::{self, Lifecycle};

use crate::coinbase::Coinbase;
use crate::config::Config;
use crate::deviation::Guard;
use crate::metrics::METRICS;
use crate::quote::Quotes;
use crate::routes;

/// Runs the service until it is asked to stop.
#[must_use]
pub fn run() -> ExitCode {
    service::run("btc_price", Config::from_env, start)
}

/// Starts the HTTP server. Coinbase is asked when the first client asks, not before.
///
/// # Errors
/// When `EXTRA_CA_FILE` cannot be used or the address is taken.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    let client = client(config.coinbase_timeout, config.extra_ca.as_deref())?;
    let hold = config.quote_deviation_hold;
    let guard = config.quote_max_deviation.map(|max| Guard::new(max, hold));
    if guard.is_none() {
        tracing::warn!(
            event = "quotes_not_limited",
            info = "QUOTE_MAX_DEVIATION is not set: a price is quoted however far it is from the last one",
        );
    }
    let quotes = Quotes::new(
        Coinbase::new(client, config.coinbase),
        config.quote_max_age,
        guard,
    );
    let listener = http::bind(&config.listen).await?;
    let checked = quotes.clone();
    let readiness = Readiness::default().needs("coinbase", move || std::future::ready(checked.check()));
    let router = routes::router(quotes, readiness);
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}
