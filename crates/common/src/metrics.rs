//! What `/metrics` shows, in Prometheus' text format.
//!
//! Metrics are held in the default registry of the `prometheus` crate. Each service defines its own in its `metrics.rs`; those that every
//! service has are beside what they measure. A histogram is an array of counters, and a label takes a fixed set of values: memory does
//! not grow with traffic, whether anybody scrapes or not.

mod process;

use std::sync::{Mutex, PoisonError};

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, Opts, TextEncoder};

pub use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

pub(crate) use process::{show_dropped_events, start};

/// Bucket bounds for what takes from a tenth of a millisecond to the longest time that a request may wait, in seconds.
pub const LATENCIES: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 12.0,
];

/// Bucket bounds for what comes in batches of up to 500.
pub const BATCHES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0];

/// Two scrapes at once would both add what a library has counted since the last one.
static SCRAPE: Mutex<()> = Mutex::new(());

/// A counter that this process registers once.
///
/// # Panics
/// Where the name is invalid or taken: a fault of the program, which the start of the service finds.
#[must_use]
pub fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

/// A family of counters, one for each value of the labels; the values must be few and fixed.
///
/// # Panics
/// As [`counter`].
#[must_use]
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge of whole numbers.
///
/// # Panics
/// As [`counter`].
#[must_use]
pub fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

/// A gauge that shows nothing while its value is not known: [`Known::set`], [`Known::forget`].
///
/// # Panics
/// As [`counter`].
#[must_use]
pub fn known(name: &str, help: &str) -> Known {
    Known(registered(GaugeVec::new(Opts::new(name, help), &[])))
}

/// A histogram with these bucket bounds.
///
/// # Panics
/// As [`counter`].
#[must_use]
pub fn histogram(name: &str, help: &str, bounds: &[f64]) -> Histogram {
    registered(Histogram::with_opts(
        HistogramOpts::new(name, help).buckets(bounds.to_vec()),
    ))
}

/// A family of histograms with these bucket bounds.
///
/// # Panics
/// As [`counter`].
#[must_use]
pub fn histograms(name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    registered(HistogramVec::new(
        HistogramOpts::new(name, help).buckets(bounds.to_vec()),
        labels,
    ))
}

/// A family of gauges that `read` sets anew for each scrape. `read` runs while the registry is locked: it must not wait, nor use a metric
/// for the first time.
///
/// # Panics
/// As [`counter`].
pub fn read_gauges(
    name: &str,
    help: &str,
    labels: &[&str],
    read: impl Fn(&GaugeVec) + Send + Sync + 'static,
) {
    register(Read {
        metric: made(GaugeVec::new(Opts::new(name, help), labels)),
        read,
    });
}

/// A family of counters that `read` brings up to date for each scrape, by [`raise`]; what holds for the `read` of [`read_gauges`] holds
/// for it too.
///
/// # Panics
/// As [`counter`].
pub fn read_counters(
    name: &str,
    help: &str,
    labels: &[&str],
    read: impl Fn(&IntCounterVec) + Send + Sync + 'static,
) {
    register(Read {
        metric: made(IntCounterVec::new(Opts::new(name, help), labels)),
        read,
    });
}

/// Raises a counter to what something else has counted.
pub fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// A gauge whose value may be unknown.
#[derive(Debug, Clone)]
pub struct Known(GaugeVec);

impl Known {
    const NO_LABELS: [&'static str; 0] = [];

    /// Shows this value from now on.
    pub fn set(&self, value: f64) {
        self.0.with_label_values(&Self::NO_LABELS).set(value);
    }

    /// Shows nothing from now on.
    pub fn forget(&self) {
        self.0.reset();
    }
}

/// One more, for as long as this lives.
#[derive(Debug)]
pub struct Held<'a>(&'a IntGauge);

impl<'a> Held<'a> {
    /// Raises the gauge by one.
    #[must_use]
    pub fn on(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All metrics of this process, as Prometheus scrapes them.
pub(crate) fn scrape() -> Response {
    let families = {
        let _one_at_a_time = SCRAPE.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus::gather()
    };
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&families, &mut text) {
        Ok(()) => {
            let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => crate::http::Problem::internal(error).into_response(),
    }
}

struct Read<C, F> {
    metric: C,
    read: F,
}

impl<C: Collector, F: Fn(&C) + Send + Sync> Collector for Read<C, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metric.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.read)(&self.metric);
        self.metric.collect()
    }
}

fn registered<C: Collector + Clone + 'static>(metric: prometheus::Result<C>) -> C {
    let metric = made(metric);
    register(metric.clone());
    metric
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; a test scrapes every service"
)]
fn made<C>(metric: prometheus::Result<C>) -> C {
    metric.expect("a metric's name and labels are valid")
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; a test scrapes every service"
)]
fn register(metric: impl Collector + 'static) {
    prometheus::register(Box::new(metric)).expect("a metric's name is not taken");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_without_a_value_shows_nothing() {
        let known = known("a_test_gauge", "Of a test.");
        let shown = || {
            prometheus::gather()
                .iter()
                .any(|family| family.name() == "a_test_gauge")
        };
        assert!(!shown());
        known.set(1.5);
        assert!(shown());
        known.forget();
        assert!(!shown());
    }

    #[test]
    fn a_counter_is_raised_and_never_lowered() -> prometheus::Result<()> {
        let counter = IntCounter::new("a_test_total", "Of a test.")?;
        for (to, shown) in [(3, 3), (3, 3), (2, 3), (5, 5)] {
            raise(&counter, to);
            assert_eq!(counter.get(), shown);
        }
        Ok(())
    }
}
