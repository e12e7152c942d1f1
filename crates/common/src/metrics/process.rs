//! What is known of every process; CPU, memory, files and threads come from the `prometheus` crate itself.

use tokio::runtime::Handle;

use super::{read_counters, read_gauges};

/// Shows which build this is, and the tasks of the runtime that this is called in.
///
/// The revision is not part of it: it is not known where images are built, from a context without `.git`, and would have every crate
/// compiled again for each commit.
pub(crate) fn start(service: &'static str) {
    let runtime = Handle::current().metrics();
    read_gauges(
        "pydist_build_info",
        "Always 1; the labels say which service and version this is.",
        &["service", "version"],
        move |built| {
            built
                .with_label_values(&[service, env!("CARGO_PKG_VERSION")])
                .set(1.0);
        },
    );
    read_gauges(
        "tokio_alive_tasks",
        "Tasks of the async runtime that have not ended.",
        &[],
        move |tasks| {
            let alive = u32::try_from(runtime.num_alive_tasks()).unwrap_or(u32::MAX);
            tasks
                .with_label_values(super::Known::NO_LABELS.as_slice())
                .set(alive.into());
        },
    );
}

/// Shows how many events of the log never arrived, by outlet: `stdout` and, where it is configured, `fluentd`.
pub(crate) fn show_dropped_events(
    lines: impl Fn() -> u64 + Send + Sync + 'static,
    fluentd: Option<fluent_logger::Sender>,
) {
    read_counters(
        "log_events_dropped_total",
        "Events that were dropped because an outlet of the log was away or slow.",
        &["outlet"],
        move |dropped| {
            super::raise(&dropped.with_label_values(&["stdout"]), lines());
            if let Some(fluentd) = &fluentd {
                super::raise(&dropped.with_label_values(&["fluentd"]), fluentd.dropped());
            }
        },
    );
}
