//! The metrics of this service.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::metrics::{Histogram, IntCounterVec, LATENCIES, counters, histogram, read_gauges};
use common::money::{Currency, PerCurrency};
use reqwest::StatusCode;

use crate::coinbase::{CoinbaseError, Price};

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// When Coinbase last gave a price in each currency.
static LAST_QUOTED: LazyLock<Mutex<PerCurrency<Option<Instant>>>> = LazyLock::new(Mutex::default);

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
        read_gauges(
            "quote_age_seconds",
            "Age of the latest price from Coinbase by currency. It grows while nobody asks for a quote.",
            &["currency"],
            |ages| {
                for (currency, at) in last_quoted().iter() {
                    if let Some(at) = at {
                        ages.with_label_values(&[currency.iso3()])
                            .set(at.elapsed().as_secs_f64());
                    }
                }
            },
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
            Ok(_) => {
                last_quoted()[currency] = Some(Instant::now());
                "price"
            }
            Err(error) => outcome(error),
        };
        self.requests.with_label_values(&[outcome]).inc();
    }
}

fn last_quoted() -> MutexGuard<'static, PerCurrency<Option<Instant>>> {
    LAST_QUOTED.lock().unwrap_or_else(PoisonError::into_inner)
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
