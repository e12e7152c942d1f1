//! What this service counts.

use std::sync::LazyLock;

use common::metrics::{BATCHES, Histogram, IntCounter, IntGauge, counter, counters, gauge, histogram};
use time::OffsetDateTime;

/// Bucket bounds of the lag in seconds: tens of milliseconds when all is well, hours after an outage or in a rebuild.
const LAGS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0,
];

/// The metrics of this service.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let deliveries = counters(
        "projection_deliveries_total",
        "Deliveries by what became of them: applied, repeated (the order was there), dead_lettered, postponed (the read model was away; \
         counted at each try).",
        &["outcome"],
    );
    Metrics {
        applied: deliveries.with_label_values(&["applied"]),
        repeated: deliveries.with_label_values(&["repeated"]),
        dead_lettered: deliveries.with_label_values(&["dead_lettered"]),
        postponed: deliveries.with_label_values(&["postponed"]),
        letters_refused: counter(
            "dead_letters_refused_total",
            "Dead letters that the broker did not take; counted at each try.",
        ),
        letters_held: gauge(
            "dead_letters_held",
            "Messages that can never be applied and that the dead-letter queue does not take: they are tried again, after a minute at most.",
        ),
        batches: histogram(
            "projection_batch_deliveries",
            "Deliveries that were taken together.",
            &BATCHES,
        ),
        lag: histogram(
            "projection_lag_seconds",
            "From the creation of an order to its commit in the read model; by the clocks of two machines.",
            &LAGS,
        ),
    }
});

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    /// Orders that are in the read model now.
    pub applied: IntCounter,
    /// Deliveries of orders that were there.
    pub repeated: IntCounter,
    /// Deliveries that were laid aside.
    pub dead_lettered: IntCounter,
    /// Deliveries that have to be tried again.
    pub postponed: IntCounter,
    /// Dead letters that the broker did not take.
    pub letters_refused: IntCounter,
    /// Deliveries that wait for the dead-letter queue.
    pub letters_held: IntGauge,
    /// Deliveries taken together.
    pub batches: Histogram,
    lag: Histogram,
}

impl Metrics {
    /// An order of this age is in the read model now.
    pub fn applied(&self, created_at: OffsetDateTime) {
        self.applied.inc();
        // Cannot overflow: a time is of the years up to 9999, a duration of far more.
        let lag = OffsetDateTime::now_utc() - created_at;
        // A clock that is behind the database's would show a negative one.
        self.lag.observe(lag.as_seconds_f64().max(0.0));
    }

    /// This many deliveries came together.
    pub fn took(&self, deliveries: usize) {
        self.batches
            .observe(u32::try_from(deliveries).unwrap_or(u32::MAX).into());
    }
}
