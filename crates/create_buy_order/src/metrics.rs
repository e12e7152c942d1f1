//! What this service counts, and what it asks its database for the sake of `/metrics`.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::database::{Pool, with_connection};
use common::metrics::{
    BATCHES, Histogram, IntCounter, IntCounterVec, IntGauge, Known, LATENCIES, counter, counters, gauge,
    histogram, known,
};
use common::money::Currency;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::error::ApiError;
use crate::order::CAP;

/// How often each replica asks the database, whether `/metrics` is scraped or not.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// The metrics of this service.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let refused = counters(
        "buy_orders_refused_total",
        "Requests that made no order, by reason.",
        &["reason"],
    );
    for reason in ApiError::REASONS {
        refused.with_label_values(&[reason]);
    }
    Metrics {
        created: counter("buy_orders_created_total", "Orders that were committed."),
        replayed: counter(
            "buy_orders_replayed_total",
            "Requests that were answered with the order of an equal request before.",
        ),
        refused,
        batches: histogram(
            "order_batch_orders",
            "Drafts that were written in one transaction.",
            &BATCHES,
        ),
        writes: histogram(
            "order_write_duration_seconds",
            "Duration of these transactions, the wait for a connection and for the lock of the total included.",
            &LATENCIES,
        ),
        waiting: gauge(
            "order_drafts_waiting",
            "Drafts that wait to be written, or are being written.",
        ),
        outbox_events: known(
            "outbox_events",
            "Events that the broker has not confirmed; not shown while the write model does not say. The same for every replica.",
        ),
        outbox_age: known(
            "outbox_oldest_age_seconds",
            "Age of the oldest of these events, 0 when there is none; shown as they are.",
        ),
        total: known(
            "order_book_btc",
            "The BTC of all orders; shown as the outbox is. The same for every replica.",
        ),
        left: known(
            "order_book_left_btc",
            "The BTC that orders may still add; shown as the outbox is.",
        ),
        currencies_missing: known(
            "order_currencies_missing",
            "Currencies that this service takes orders in and the write model does not have yet; shown as the outbox is.",
        ),
    }
});

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    /// Orders that were committed.
    pub created: IntCounter,
    /// Repeats.
    pub replayed: IntCounter,
    /// Drafts that wait.
    pub waiting: IntGauge,
    refused: IntCounterVec,
    batches: Histogram,
    writes: Histogram,
    outbox_events: Known,
    outbox_age: Known,
    total: Known,
    left: Known,
    currencies_missing: Known,
}

impl Metrics {
    /// A request made no order.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// The writer has taken this many drafts off the queue.
    pub fn took(&self, drafts: usize) {
        self.waiting.sub(i64::try_from(drafts).unwrap_or(i64::MAX));
        self.batches
            .observe(u32::try_from(drafts).unwrap_or(u32::MAX).into());
    }

    /// A transaction that began at `begun` is over.
    pub fn wrote(&self, begun: Instant) {
        self.writes.observe(begun.elapsed().as_secs_f64());
    }

    fn show(&self, standing: &Standing, oldest_age_s: f64) {
        self.outbox_events
            .set(u32::try_from(standing.messages).unwrap_or(u32::MAX).into());
        self.outbox_age.set(oldest_age_s);
        for (gauge, amount) in [(&self.total, standing.total), (&self.left, CAP - standing.total)] {
            match amount.to_f64() {
                Some(amount) => gauge.set(amount),
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

/// How outbox and book stand.
#[derive(Debug, sqlx::FromRow)]
pub struct Standing {
    /// Messages in the outbox.
    pub messages: i64,
    /// `outbox.id` of the oldest; nothing where there is none.
    pub oldest_id: Option<i64>,
    /// Its age in seconds by the clock of the database.
    pub oldest_age_s: Option<f64>,
    /// The BTC of all orders.
    pub total: Decimal,
}

/// Keeps the gauges of outbox and book up to date until the process is asked to stop. While the write model does not answer they show
/// nothing, which Prometheus takes for what it is; that it is away is reported by those who need it.
///
/// # Errors
/// None; the signature is that of a service's task.
pub async fn watch_standing(pool: Pool, stopping: CancellationToken) -> anyhow::Result<()> {
    let watch = async {
        let (mut oldest, mut currencies) = (Oldest::default(), Currencies::default());
        loop {
            match with_connection(&pool, db::outbox::standing).await {
                Ok(standing) => METRICS.show(&standing, oldest.age_s(&standing, Instant::now())),
                Err(_) => METRICS.forget(),
            }
            match with_connection(&pool, db::missing_currencies).await {
                Ok(missing) => currencies.show(missing),
                Err(_) => METRICS.currencies_missing.forget(),
            }
            tokio::time::sleep(ASKED_EVERY).await;
        }
    };
    // A stop waits for no answer of the database: a query that only reads may be dropped.
    stopping.run_until_cancelled(watch).await;
    Ok(())
}

/// The oldest event, and since when it was seen to be that.
#[derive(Debug, Default)]
struct Oldest(Option<(i64, Instant)>);

impl Oldest {
    /// The age of the oldest event, 0 where there is none. By the clock of the database, but at least as long as it was seen to wait: after
    /// that clock was set back, an event is younger than nothing, and may wait all the same.
    fn age_s(&mut self, standing: &Standing, now: Instant) -> f64 {
        self.0 = standing.oldest_id.map(|id| match self.0 {
            Some((known, since)) if known == id => (id, since),
            _ => (id, now),
        });
        let seen = self
            .0
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(since));
        standing.oldest_age_s.unwrap_or_default().max(seen.as_secs_f64())
    }
}

/// Whether the schema has the currencies that this service knows.
#[derive(Debug, Default)]
struct Currencies {
    missing: Vec<Currency>,
}

impl Currencies {
    /// An event where it changed, and at the start where one is missing.
    fn show(&mut self, missing: Vec<Currency>) {
        METRICS
            .currencies_missing
            .set(u32::try_from(missing.len()).unwrap_or(u32::MAX).into());
        if missing == self.missing {
            return;
        }
        if missing.is_empty() {
            tracing::info!(event = "schema_fits_code", model = "write_model");
        } else {
            let names: Vec<&str> = missing.iter().map(|currency| currency.iso3()).collect();
            tracing::error!(
                event = "schema_differs_from_code",
                model = "write_model",
                missing_currencies = names.join(", "),
                info = "the table currency has not all currencies that this service takes orders in: the schema is older than the service",
            );
        }
        self.missing = missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_old_as_the_database_says_but_not_younger_than_it_was_seen() {
        let standing = |oldest: Option<(i64, f64)>| Standing {
            messages: 1,
            oldest_id: oldest.map(|(id, _)| id),
            oldest_age_s: oldest.map(|(_, age)| age),
            total: Decimal::ZERO,
        };
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        let mut oldest = Oldest::default();
        let ages = [
            oldest.age_s(&standing(None), begun),
            oldest.age_s(&standing(Some((7, 3.0))), later(5)),
            // The clock went back.
            oldest.age_s(&standing(Some((7, -595.0))), later(10)),
            oldest.age_s(&standing(Some((7, -590.0))), later(15)),
            oldest.age_s(&standing(Some((8, -580.0))), later(20)),
            oldest.age_s(&standing(None), later(25)),
        ];
        assert_eq!(
            ages.map(|age| format!("{age:.1}")),
            ["0.0", "3.0", "5.0", "10.0", "0.0", "0.0"]
        );
    }
}
