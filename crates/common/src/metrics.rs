//! Metrics in Prometheus' text format.
//!
//! They are held in the default registry of the `prometheus` crate. Each service defines its own in its `metrics.rs`. Those that every
//! service has are beside what they measure. A histogram is an array of counters, and a label has a fixed set of values, so memory does
//! not grow with traffic.
//!
//! What registers a metric panics if its name is invalid or taken: a mistake in the program, which its first start shows.

mod process;

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, Opts, TextEncoder};
use scopeguard::ScopeGuard;

pub use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

pub(crate) use process::{show_dropped_events, show_process};
pub(crate) use prometheus::TEXT_FORMAT;

/// Bucket bounds for latencies in seconds, from a tenth of a millisecond to about the longest time that a request may take.
pub const LATENCIES: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 12.0,
];

/// Bucket bounds for sizes of batches of up to 500.
pub const BATCHES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0];

/// Two concurrent scrapes would both add what was counted elsewhere since the last one ([`raise`]), and both add up the pools.
static SCRAPE: Mutex<()> = Mutex::new(());

/// Registers a counter.
#[must_use]
pub fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

/// Registers a counter for each value of the labels. The values must be few and fixed.
#[must_use]
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

/// Registers a gauge of whole numbers.
#[must_use]
pub fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

/// Registers a gauge that is not shown while its value is unknown: [`Known::set`], [`Known::forget`].
#[must_use]
pub fn known(name: &str, help: &str) -> Known {
    Known(registered(GaugeVec::new(Opts::new(name, help), &[])))
}

/// Registers a histogram with these bucket bounds.
#[must_use]
pub fn histogram(name: &str, help: &str, bounds: &[f64]) -> Histogram {
    registered(Histogram::with_opts(
        HistogramOpts::new(name, help).buckets(bounds.to_vec()),
    ))
}

/// Registers a histogram with these bucket bounds for each value of the labels.
#[must_use]
pub fn histograms(name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    registered(HistogramVec::new(
        HistogramOpts::new(name, help).buckets(bounds.to_vec()),
        labels,
    ))
}

/// Registers gauges that `read` sets for each scrape. The registry is locked while `read` runs: it must not block, nor use a metric for the
/// first time.
pub fn read_gauges(
    name: &str,
    help: &str,
    labels: &[&str],
    read: impl Fn(&GaugeVec) + Send + Sync + 'static,
) {
    register(ReadOnScrape {
        metric: valid(GaugeVec::new(Opts::new(name, help), labels)),
        read,
    });
}

/// Raises a counter to a count that is kept elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// A gauge whose value may be unknown.
#[derive(Debug, Clone)]
pub struct Known(GaugeVec);

impl Known {
    /// Shows this value from now on.
    pub fn set(&self, value: f64) {
        self.0.with_label_values::<&str>(&[]).set(value);
    }

    /// Shows nothing from now on.
    pub fn forget(&self) {
        self.0.reset();
    }
}

/// Counts one more in a gauge until the returned guard is dropped.
#[must_use]
pub(crate) fn count_in(gauge: &IntGauge) -> ScopeGuard<&IntGauge, fn(&IntGauge)> {
    gauge.inc();
    scopeguard::guard(gauge, IntGauge::dec)
}

/// All metrics of this process, in [`TEXT_FORMAT`].
///
/// # Errors
/// A metric cannot be written in this format.
pub(crate) fn scrape() -> prometheus::Result<String> {
    let families = {
        let _one_at_a_time = SCRAPE.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus::gather()
    };
    let mut text = String::new();
    TextEncoder::new().encode_utf8(&families, &mut text)?;
    Ok(text)
}

struct ReadOnScrape<C, F> {
    metric: C,
    read: F,
}

impl<C: Collector, F: Fn(&C) + Send + Sync> Collector for ReadOnScrape<C, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metric.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.read)(&self.metric);
        self.metric.collect()
    }
}

fn registered<C: Collector + Clone + 'static>(metric: prometheus::Result<C>) -> C {
    let metric = valid(metric);
    register(metric.clone());
    metric
}

fn register(metric: impl Collector + 'static) {
    valid(prometheus::register(Box::new(metric)));
}

#[expect(
    clippy::expect_used,
    reason = "names are constants; a test scrapes every service"
)]
fn valid<T>(result: prometheus::Result<T>) -> T {
    result.expect("a metric's name and labels are valid, and its name is not taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_without_a_value_shows_nothing() {
        let known = known("a_test_gauge", "Of a test.");
        let is_shown = || {
            let families = prometheus::gather();
            families.iter().any(|family| family.name() == "a_test_gauge")
        };
        assert!(!is_shown());
        known.set(1.5);
        assert!(is_shown());
        known.forget();
        assert!(!is_shown());
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
