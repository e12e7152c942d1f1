//! Start-up.

use std::process::ExitCode;
use std::sync::Arc;

use common::http;
use common::service::{self, Lifecycle};
use tokio::sync::watch;

use crate::config::Config;
use crate::journeys::Journeys;
use crate::pass_on::PassOn;
use crate::routes::{State, router};
use crate::viewers::Viewers;
use crate::watch::{Published, ask_for_ever};

/// Runs the service until it is asked to stop.
#[must_use]
pub fn run() -> ExitCode {
    service::run("console", Config::from_env, start)
}

/// Asks the services from now on, and serves the page. It waits for none of them.
///
/// # Errors
/// When the port cannot be bound or an HTTP client cannot be built.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let Config {
        listen,
        peers,
        extra_ca,
        own_name,
    } = config;
    let pass_on = PassOn::new(
        peers.create_buy_order.clients.clone(),
        peers.fetch_buy_orders.clients.clone(),
        extra_ca.as_deref(),
    )?;
    let (publish, latest) = watch::channel(Arc::new(Published::default()));
    let state = State {
        viewers: Viewers::new(latest, lifecycle.stopping()),
        pass_on,
        journeys: Arc::new(Journeys::default()),
    };
    let listener = http::bind(&listen).await?;
    lifecycle.spawn(
        "watch",
        ask_for_ever(peers, extra_ca, publish, lifecycle.stopping()),
    );
    let routes = router(state, own_name.as_deref());
    lifecycle.spawn("http", http::serve(listener, routes, lifecycle.stopping()));
    Ok(())
}
