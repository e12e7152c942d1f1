//! Metrics that every process has. CPU, memory, files and threads come from the `prometheus` crate itself.

use tokio::runtime::Handle;

use super::{IntCounterVec, Opts, ReadOnScrape, raise, read_gauges, register, valid};

/// Shows the version of the service, and the tasks of the async runtime in which this is called.
///
/// The git revision is not shown: images are built without `.git`, and each commit would rebuild every crate.
pub(crate) fn show_process(service: &'static str) {
    let runtime = Handle::current().metrics();
    read_gauges(
        "pydist_build_info",
        "Always 1; the labels name the service and its version.",
        &["service", "version"],
        move |build| {
            let labels = [service, env!("CARGO_PKG_VERSION")];
            build.with_label_values(&labels).set(1.0);
        },
    );
    read_gauges(
        "tokio_alive_tasks",
        "Tasks of the async runtime that are alive.",
        &[],
        move |tasks| {
            let alive = u32::try_from(runtime.num_alive_tasks()).unwrap_or(u32::MAX);
            tasks.with_label_values::<&str>(&[]).set(alive.into());
        },
    );
}

/// Shows how many events of the log were dropped, by outlet: `stdout` and, if it is configured, `fluentd`.
pub(crate) fn show_dropped_events(
    lines: impl Fn() -> u64 + Send + Sync + 'static,
    fluentd: Option<fluent_logger::Sender>,
) {
    let dropped = Opts::new(
        "log_events_dropped_total",
        "Events that were dropped because an outlet of the log was away or slow.",
    );
    register(ReadOnScrape {
        metric: valid(IntCounterVec::new(dropped, &["outlet"])),
        read: move |dropped: &IntCounterVec| {
            raise(&dropped.with_label_values(&["stdout"]), lines());
            if let Some(fluentd) = &fluentd {
                raise(&dropped.with_label_values(&["fluentd"]), fluentd.dropped());
            }
        },
    });
}
