//! The metrics of this service, and the task that reads some of them from the write model.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::database::{Pool, with_connection};
use common::metrics::{
    BATCHES, Histogram, IntCounter, IntCounterVec, IntGauge, Known, LATENCIES, counter, counters, gauge,
    histogram, known,
};
use common::money::Currency;
use rust_decimal::prelude::ToPrimitive as _;
use tokio_util::sync::CancellationToken;

use crate::db::{self, outbox::Gauges};
use crate::error::ApiError;
use crate::order::CAP;

/// How often each replica reads the gauges of the write model, whether `/metrics` is scraped or not.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How often it reads them while that takes long: to count a long outbox does.
const READ_SLOW_EVERY: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_millis(50);

/// The metrics of this service.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let refused = counters(
        "buy_orders_refused_total",
        "Refused requests by reason.",
        &["reason"],
    );
    for reason in ApiError::REASONS {
        refused.with_label_values(&[reason]);
    }
    Metrics {
        created: counter("buy_orders_created_total", "Orders that were committed."),
        replayed: counter(
            "buy_orders_replayed_total",
            "Repeats: requests that were answered with the order of an earlier, equal request.",
        ),
        refused,
        batches: histogram(
            "order_batch_orders",
            "Requests that one call of accept_orders decided, including repeats.",
            &BATCHES,
        ),
        writes: histogram(
            "order_write_duration_seconds",
            "Duration of these calls, including the wait for a connection and for the lock of the running total.",
            &LATENCIES,
        ),
        waiting: gauge(
            "order_drafts_waiting",
            "Requests that wait for accept_orders, or are in a call of it.",
        ),
        outbox_events: known(
            "outbox_events",
            "Messages in the outbox: the broker has not confirmed them yet. Absent while the write model does not answer. The same for every replica.",
        ),
        outbox_age: known(
            "outbox_oldest_age_seconds",
            "Age of the oldest message in the outbox; 0 when it is empty. Absent while the write model does not answer.",
        ),
        total: known(
            "order_book_btc",
            "Total BTC of all orders. Absent while the write model does not answer. The same for every replica.",
        ),
        left: known(
            "order_book_left_btc",
            "BTC that orders may still add before the cap. Absent while the write model does not answer.",
        ),
        currencies_missing: known(
            "order_currencies_missing",
            "Currencies that this service supports and the write model does not have yet. Absent while the write model does not answer.",
        ),
    }
});

/// Their meaning is their help text in `/metrics`.
pub(crate) struct Metrics {
    pub(crate) created: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) writes: Histogram,
    refused: IntCounterVec,
    batches: Histogram,
    outbox_events: Known,
    outbox_age: Known,
    total: Known,
    left: Known,
    currencies_missing: Known,
}

impl Metrics {
    /// Counts a request that made no order.
    pub(crate) fn count_refusal(&self, error: &ApiError) {
        self.refused.with_label_values(&[error.reason()]).inc();
    }

    /// Counts a batch that is done: these drafts no longer wait.
    pub(crate) fn count_batch(&self, drafts: usize) {
        self.waiting.sub(i64::try_from(drafts).unwrap_or(i64::MAX));
        self.batches
            .observe(u32::try_from(drafts).unwrap_or(u32::MAX).into());
    }

    fn show(&self, gauges: &Gauges, oldest_age_s: f64) {
        self.outbox_events
            .set(u32::try_from(gauges.messages).unwrap_or(u32::MAX).into());
        self.outbox_age.set(oldest_age_s);
        for (gauge, btc) in [(&self.total, gauges.total), (&self.left, CAP - gauges.total)] {
            match btc.to_f64() {
                Some(btc) => gauge.set(btc),
                None => gauge.forget(),
            }
        }
    }

    fn forget(&self) {
        for gauge in [&self.outbox_events, &self.outbox_age, &self.total, &self.left] {
            gauge.forget();
        }
    }
}

/// Keeps the gauges of outbox and book up to date until the process is asked to stop. While the write model does not answer, they have no
/// value. The failure is not logged here: whoever needs the write model reports it.
pub(crate) async fn watch_write_model(pool: Pool, stopping: CancellationToken) -> anyhow::Result<()> {
    let watch = async {
        let (mut oldest, mut reported) = (OldestMessage::default(), Vec::new());
        loop {
            let begun = Instant::now();
            match with_connection(&pool, db::outbox::gauges).await {
                Ok(gauges) => METRICS.show(&gauges, oldest.age_s(&gauges, Instant::now())),
                Err(_) => METRICS.forget(),
            }
            match with_connection(&pool, db::missing_currencies).await {
                Ok(missing) => {
                    METRICS
                        .currencies_missing
                        .set(u32::try_from(missing.len()).unwrap_or(u32::MAX).into());
                    if missing != reported {
                        report_currencies(&missing);
                        reported = missing;
                    }
                }
                Err(_) => METRICS.currencies_missing.forget(),
            }
            let pause = if begun.elapsed() < SLOW {
                READ_EVERY
            } else {
                READ_SLOW_EVERY
            };
            tokio::time::sleep(pause).await;
        }
    };
    // These queries only read, so a stop may drop them.
    stopping.run_until_cancelled(watch).await;
    Ok(())
}

/// The id of the oldest message in the outbox, and since when this process has seen it there.
#[derive(Debug, Default)]
struct OldestMessage(Option<(i64, Instant)>);

impl OldestMessage {
    /// The age of the oldest message in seconds, 0 when there is none: the age by the clock of the database, but not less than the time for
    /// which this process has seen the message. After the clock of the database was set back, the age by that clock is negative.
    fn age_s(&mut self, gauges: &Gauges, now: Instant) -> f64 {
        self.0 = gauges.oldest_id.map(|id| match self.0 {
            Some((known, since)) if known == id => (id, since),
            _ => (id, now),
        });
        let seen = self
            .0
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(since));
        gauges.oldest_age_s.unwrap_or_default().max(seen.as_secs_f64())
    }
}

fn report_currencies(missing: &[Currency]) {
    if missing.is_empty() {
        tracing::info!(event = "schema_fits_code", model = "write_model");
        return;
    }
    let names: Vec<&str> = missing.iter().map(|currency| currency.iso3()).collect();
    tracing::error!(
        event = "schema_differs_from_code",
        model = "write_model",
        missing_currencies = names.join(", "),
        info = "the table currency has not all currencies that this service takes orders in: the schema is older than the service",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_old_as_the_database_says_but_at_least_as_old_as_it_was_seen() {
        let gauges = |oldest: Option<(i64, f64)>| Gauges {
            messages: 1,
            oldest_id: oldest.map(|(id, _)| id),
            oldest_age_s: oldest.map(|(_, age)| age),
            total: rust_decimal::Decimal::ZERO,
        };
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        let mut oldest = OldestMessage::default();
        let ages = [
            oldest.age_s(&gauges(None), begun),
            oldest.age_s(&gauges(Some((7, 3.0))), later(5)),
            // The clock went back.
            oldest.age_s(&gauges(Some((7, -595.0))), later(10)),
            oldest.age_s(&gauges(Some((7, -590.0))), later(15)),
            oldest.age_s(&gauges(Some((8, -580.0))), later(20)),
            oldest.age_s(&gauges(None), later(25)),
        ];
        assert_eq!(
            ages.map(|age| format!("{age:.1}")),
            ["0.0", "3.0", "5.0", "10.0", "0.0", "0.0"]
        );
    }
}
