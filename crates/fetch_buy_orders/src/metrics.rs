//! The metrics of this service.

use std::sync::LazyLock;
use std::time::Duration;

use common::metrics::{HistogramVec, IntCounter, LATENCIES, counter, histograms};

use crate::error::ApiError;

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let waits = histograms(
        "order_position_wait_seconds",
        "How long requests with an Order-Position waited until that order was projected, or were refused, by outcome.",
        &["outcome"],
        &LATENCIES,
    );
    for outcome in OUTCOMES {
        waits.with_label_values(&[outcome]);
    }
    Metrics {
        pages: counter("buy_order_pages_served_total", "Pages that were served."),
        rows: counter("buy_order_rows_served_total", "Orders on served pages."),
        waits,
    }
});

/// Every value of the label `outcome` of the metric `order_position_wait_seconds`.
const OUTCOMES: [&str; 4] = ["projected", "not_projected", "too_many", "not_read"];

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    pages: IntCounter,
    rows: IntCounter,
    waits: HistogramVec,
}

impl Metrics {
    /// Counts a page with this many rows.
    pub(crate) fn served(&self, rows: usize) {
        self.pages.inc();
        self.rows.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// Counts a request that waited for an order, and how that ended.
    pub(crate) fn waited(&self, time: Duration, outcome: &Result<(), ApiError>) {
        let outcome = match outcome {
            Ok(()) => "projected",
            Err(ApiError::NotProjected) => "not_projected",
            Err(ApiError::TooManyWait) => "too_many",
            Err(_) => "not_read",
        };
        let waits = self.waits.with_label_values(&[outcome]);
        waits.observe(time.as_secs_f64());
    }
}
