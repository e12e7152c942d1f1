//! The log: one stream of structured events with two outlets. JSON lines are always written to standard output (12-factor, XI). Fluentd
//! gets the events too, if it is configured.
//!
//! An event is a `tracing` event with an `event` field: `tracing::info!(event = "buy_order_created", id, %external_id)`. An event without
//! this field becomes `information{text}`. In Fluentd the tag is `pydist.<service>.<event>`, and the other fields are the record.

mod fields;
mod fluent_layer;
mod json_lines;

use std::io::{BufWriter, IsTerminal as _, Write, stderr, stdout};
use std::time::Duration;

use tokio::time::timeout;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::metrics;
use fluent_layer::FluentLayer;
use json_lines::{BatchingWriter, JsonLines};

/// Logs from level `info`, but less of libraries whose `info` events help only their authors.
const DEFAULT_FILTER: &str =
    "info,lapin=error,sqlx=warn,refinery=warn,hyper=warn,reqwest=warn,opentelemetry=warn";

/// Capacity of the buffer of lines that are not written yet. A slow reader of standard output must not delay requests: lines that do not
/// fit are dropped and counted.
const MAX_WAITING_LINES: usize = 10_000;

const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Where the JSON lines go. Fluentd gets the same events in both cases.
#[derive(Debug, Clone, Copy)]
pub enum Outlet {
    /// For a service, which prints nothing but its log.
    Stdout,
    /// For a process that prints results on standard output. On a terminal only warnings and errors are shown, unless `RUST_LOG` is set: a
    /// person wants to read the results.
    Stderr,
}

impl Outlet {
    fn writer(self) -> Box<dyn Write + Send> {
        match self {
            Self::Stdout => Box::new(BufWriter::new(stdout())),
            Self::Stderr => Box::new(BufWriter::new(stderr())),
        }
    }
}

/// The log of this process; flush it before the process ends.
#[derive(Debug)]
pub struct Log {
    lines: WorkerGuard,
    fluent: Option<fluent_logger::Worker>,
}

impl Log {
    /// Writes and sends what is still buffered, for at most `deadline`.
    pub async fn flush(self, deadline: Duration) {
        // Dropping the guard waits until the lines are written, which may take longer than the deadline if nobody reads them.
        let lines = tokio::task::spawn_blocking(|| drop(self.lines));
        let fluent = async {
            if let Some(worker) = self.fluent {
                worker.flush_and_stop(deadline).await;
            }
        };
        let _ = tokio::join!(timeout(deadline, lines), fluent);
    }
}

/// Sets up logging for the whole process. Must be called inside the async runtime.
///
/// `filter` has the syntax of `RUST_LOG`. If another `tracing` subscriber is set already, that one stays.
#[must_use]
pub fn start(
    service: &'static str,
    log_server: Option<fluent_logger::Config>,
    filter: Option<&str>,
    outlet: Outlet,
) -> Log {
    let line_level = match (outlet, filter) {
        (Outlet::Stderr, None) if stderr().is_terminal() => LevelFilter::WARN,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(DEFAULT_FILTER));
    let (lines, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .finish(BatchingWriter(outlet.writer()));
    let dropped = lines.error_counter();
    tokio::spawn(report_drops(dropped.clone()));
    let (fluent_layer, fluent) = log_server
        .map(|config| FluentLayer::start(service, config))
        .unzip();
    let lines_dropped = move || u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
    let sender = fluent_layer.as_ref().map(|layer| layer.sender.clone());
    metrics::show_dropped_events(lines_dropped, sender);
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(JsonLines { service, lines }.with_filter(line_level))
        .with(fluent_layer)
        .try_init();
    Log { lines: guard, fluent }
}

async fn report_drops(dropped: ErrorCounter) {
    let mut reported = 0;
    loop {
        tokio::time::sleep(DROP_REPORT_INTERVAL).await;
        let lines = dropped.dropped_lines();
        if lines > reported {
            let new = lines - reported;
            tracing::warn!("{new} lines of the log were dropped because nobody read them in time");
            reported = lines;
        }
    }
}

/// An error and its sources in one line, separated by colons.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> = anyhow::Chain::new(error).map(ToString::to_string).collect();
    causes.join(": ")
}
