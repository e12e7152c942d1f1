//! The metrics of this service.

use std::sync::LazyLock;

use common::metrics::{BATCHES, Histogram, IntCounter, IntGauge, counter, counters, gauge, histogram};
use time::OffsetDateTime;

/// Bucket bounds of the lag in seconds: tens of milliseconds normally, hours after an outage or during a rebuild.
const LAGS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0,
];

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let deliveries = counters(
        "projection_deliveries_total",
        "Deliveries of orders and voids by outcome: applied, repeated (it was already stored), dead_lettered, postponed (the read model was \
         away; counted at each attempt).",
        &["outcome"],
    );
    Metrics {
        applied: deliveries.with_label_values(&["applied"]),
        repeated: deliveries.with_label_values(&["repeated"]),
        dead_lettered: deliveries.with_label_values(&["dead_lettered"]),
        postponed: deliveries.with_label_values(&["postponed"]),
        letters_refused: counter(
            "dead_letters_refused_total",
            "Dead letters that the broker refused, counted at each attempt.",
        ),
        letters_held: gauge(
            "dead_letters_held",
            "Dead letters that the broker refused and that this process holds. It sends them again, at least once a minute.",
        ),
        batches: histogram(
            "projection_batch_deliveries",
            "Deliveries in one batch.",
            &BATCHES,
        ),
        lag: histogram(
            "projection_lag_seconds",
            "Time from the creation of an order, by the clock of the write model, to its commit in the read model, by the clock of this service. Voids do not count.",
            &LAGS,
        ),
    }
});

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) applied: IntCounter,
    pub(crate) repeated: IntCounter,
    pub(crate) dead_lettered: IntCounter,
    pub(crate) postponed: IntCounter,
    pub(crate) letters_refused: IntCounter,
    pub(crate) letters_held: IntGauge,
    batches: Histogram,
    lag: Histogram,
}

impl Metrics {
    /// Observes the lag of an order that was inserted.
    pub(crate) fn observe_lag(&self, created_at: OffsetDateTime) {
        // Cannot overflow: the reader of events refuses years after 9999.
        let lag = OffsetDateTime::now_utc() - created_at;
        // Negative when our clock is behind the database's.
        self.lag.observe(lag.as_seconds_f64().max(0.0));
    }

    /// Observes the size of a batch.
    pub(crate) fn took(&self, deliveries: usize) {
        self.batches
            .observe(u32::try_from(deliveries).unwrap_or(u32::MAX).into());
    }
}
