//! The metrics of this service.

use std::sync::LazyLock;

use common::metrics::{IntCounter, counter};

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    pages: counter("buy_order_pages_served_total", "Pages that were served."),
    rows: counter("buy_order_rows_served_total", "Orders on served pages."),
});

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    pages: IntCounter,
    rows: IntCounter,
}

impl Metrics {
    /// Counts a page with this many rows.
    pub(crate) fn served(&self, rows: usize) {
        self.pages.inc();
        self.rows.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }
}
