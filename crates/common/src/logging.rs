//! One stream of structured events with two outlets: JSON lines on standard output (12-factor, XI), always; and Fluentd, when configured.
//!
//! An event is a `tracing` event with an `event` field: `tracing::info!(event = "buy_order_created", id, %external_id)`. One without
//! becomes `information{text}`. Fluentd gets it under the tag `pydist.<service>.<event>`, with the other fields as its record.

mod fluent_layer;
mod json_lines;

use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::endpoints::Logging;
use fluent_layer::FluentLayer;
use json_lines::JsonLines;

/// Events of this level and above, except for libraries that report at `info` what only their authors need.
const DEFAULT_FILTER: &str = "info,lapin=error,sqlx=warn,refinery=warn,hyper=warn,reqwest=warn";

/// The log of this process; flush it before the process ends.
#[derive(Debug)]
pub struct Log {
    fluent: Option<fluent_logger::Worker>,
}

impl Log {
    /// Sends what is still buffered, for at most `deadline`.
    pub async fn flush(self, deadline: Duration) {
        if let Some(worker) = self.fluent {
            worker.flush_and_stop(deadline).await;
        }
    }
}

/// Sets up logging for the whole process. Must be called inside the async runtime.
///
/// `filter` is in the syntax of `RUST_LOG`. Where another subscriber is set already, that one stays.
#[must_use]
pub fn start(service: &'static str, endpoint: &Logging, filter: Option<&str>) -> Log {
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(DEFAULT_FILTER));
    let stdout = JsonLines { service };
    let (fluent_layer, fluent) = match &endpoint.host {
        None => (None, None),
        Some(host) => {
            let (layer, worker) = FluentLayer::start(service, host, endpoint);
            (Some(layer), Some(worker))
        }
    };
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(stdout)
        .with(fluent_layer)
        .try_init();
    Log { fluent }
}
