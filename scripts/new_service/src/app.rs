//! What the process does, from start to serving.

{{imports}}use common::http::Readiness;
use common::service::Lifecycle;
use common::{http{{used}}};

use crate::config::Config;
use crate::routes::{self, State};

/// Waits for what the service needs, then serves.
///
/// # Errors
/// When the port cannot be bound.
pub async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    {{waits}}
    let readiness = Readiness::default(){{needs}};
    let state = State { {{state_values}} };
    let listener = http::bind(&config.listen).await?;
    lifecycle.spawn("http", http::serve(listener, routes::router(state, readiness), lifecycle.stopping()));
    Ok(())
}
