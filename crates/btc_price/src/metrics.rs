//! The metrics of this service.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::metrics::{Histogram, IntCounterVec, LATENCIES, counters, histogram, read_gauges};
use common::money::{Currency, PerCurrency};
use reqwest::StatusCode;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use crate::coinbase::{CoinbaseError, Price};

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The latest price in each currency.
static LATEST: LazyLock<Mutex<PerCurrency<Option<Latest>>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy)]
struct Latest {
    rate: Decimal,
    /// When Coinbase gave it.
    at: Instant,
}

const OUTCOMES: [&str; 10] = [
    "price",
    "unreachable",
    "timeout",
    "rate_limited",
    "status",
    "oversize",
    "malformed",
    "wrong_price",
    "deviates",
    "interrupted",
];

/// Their meaning is their help text in `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    durations: Histogram,
}

impl Metrics {
    fn new() -> Self {
        let requests = counters(
            "coinbase_requests_total",
            "Requests to Coinbase by outcome: price, or the reason why there is none.",
            &["outcome"],
        );
        for outcome in OUTCOMES {
            requests.with_label_values(&[outcome]);
        }
        show_latest(
            "quote_age_seconds",
            "Age of the latest price from Coinbase by currency. It grows while nobody asks for a quote.",
            |latest| Some(latest.at.elapsed().as_secs_f64()),
        );
        show_latest(
            "quote_rate",
            "The latest price of one BTC from Coinbase by currency.",
            |latest| latest.rate.to_f64(),
        );
        Self {
            requests,
            durations: histogram(
                "coinbase_request_duration_seconds",
                "Duration of requests to Coinbase.",
                &LATENCIES,
            ),
        }
    }

    /// Counts a request to Coinbase that was sent at `begun` and had this result.
    pub(crate) fn count_request(
        &self,
        currency: Currency,
        begun: Instant,
        result: &Result<Price, CoinbaseError>,
    ) {
        self.durations.observe(begun.elapsed().as_secs_f64());
        let outcome = match result {
            Ok(price) => {
                locked()[currency] = Some(Latest {
                    rate: price.rate.decimal(),
                    at: Instant::now(),
                });
                "price"
            }
            Err(error) => outcome(error),
        };
        self.requests.with_label_values(&[outcome]).inc();
    }
}

fn show_latest(name: &str, help: &str, value: fn(&Latest) -> Option<f64>) {
    read_gauges(name, help, &["currency"], move |gauges| {
        for (currency, latest) in locked().iter() {
            if let Some(value) = latest.as_ref().and_then(value) {
                gauges.with_label_values(&[currency.iso3()]).set(value);
            }
        }
    });
}

fn locked() -> MutexGuard<'static, PerCurrency<Option<Latest>>> {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The label of a failed request.
fn outcome(error: &CoinbaseError) -> &'static str {
    match error {
        CoinbaseError::Unreachable(cause) if cause.is_timeout() => "timeout",
        CoinbaseError::Unreachable(_) => "unreachable",
        CoinbaseError::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        CoinbaseError::Status { .. } => "status",
        CoinbaseError::Oversize => "oversize",
        CoinbaseError::Malformed(_) => "malformed",
        CoinbaseError::WrongPair { .. } | CoinbaseError::WrongAmount { .. } => "wrong_price",
        CoinbaseError::Deviates { .. } => "deviates",
        CoinbaseError::Interrupted => "interrupted",
    }
}
