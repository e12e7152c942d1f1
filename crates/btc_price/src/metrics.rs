//! What this service counts.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use common::metrics::{Histogram, IntCounterVec, LATENCIES, counters, histogram, read_gauges};
use common::money::Currency;
use reqwest::StatusCode;

use crate::coinbase::PriceError;

/// The metrics of this service.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// When the last price in each currency came: USD, EUR, GBP.
static LAST_QUOTED: Mutex<[Option<Instant>; 3]> = Mutex::new([None; 3]);

const CURRENCIES: [Currency; 3] = [Currency::Usd, Currency::Eur, Currency::Gbp];

const OUTCOMES: [&str; 9] = [
    "price",
    "unreachable",
    "timeout",
    "rate_limited",
    "status",
    "oversize",
    "malformed",
    "wrong_price",
    "interrupted",
];

/// See the help of each in `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    durations: Histogram,
}

impl Metrics {
    fn new() -> Self {
        let requests = counters(
            "coinbase_requests_total",
            "Requests to Coinbase by outcome: price, or why there was none.",
            &["outcome"],
        );
        for outcome in OUTCOMES {
            requests.with_label_values(&[outcome]);
        }
        read_gauges(
            "quote_age_seconds",
            "Age of the last price that Coinbase gave, by currency; it grows while nobody asks.",
            &["currency"],
            |ages| {
                for (currency, at) in CURRENCIES.iter().zip(*last_quoted()) {
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

    /// Coinbase was asked for a price at `begun`, and this is what came of it.
    pub fn asked<T>(&self, currency: Currency, begun: Instant, outcome: &Result<T, PriceError>) {
        self.durations.observe(begun.elapsed().as_secs_f64());
        let name = outcome.as_ref().map_or_else(name, |_| "price");
        self.requests.with_label_values(&[name]).inc();
        if outcome.is_ok() {
            let mut quoted = last_quoted();
            for (known, at) in CURRENCIES.iter().zip(quoted.iter_mut()) {
                if *known == currency {
                    *at = Some(Instant::now());
                }
            }
        }
    }
}

fn last_quoted() -> std::sync::MutexGuard<'static, [Option<Instant>; 3]> {
    LAST_QUOTED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(error: &PriceError) -> &'static str {
    match error {
        PriceError::Unreachable(cause) if cause.is_timeout() => "timeout",
        PriceError::Unreachable(_) => "unreachable",
        PriceError::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        PriceError::Status { .. } => "status",
        PriceError::Oversize => "oversize",
        PriceError::Malformed(_) => "malformed",
        PriceError::WrongPair { .. } | PriceError::WrongAmount { .. } => "wrong_price",
        PriceError::Interrupted => "interrupted",
    }
}
