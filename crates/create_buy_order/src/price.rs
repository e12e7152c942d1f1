//! The client of `btc_price`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use backon::{ExponentialBuilder, Retryable as _};
use common::coalesce::Coalesced;
use common::endpoints::Peer;
use common::http::FRESH_FOR_MS;
use common::http::client::{self, Recipient};
use common::logging::chain;
use common::money::{BtcRate, Currency, MoneyError, PerCurrency};
use opentelemetry::Context;
use opentelemetry::trace::FutureExt as _;
use serde::Deserialize;

/// Longer than the default timeout of `btc_price` towards its provider.
const TIMEOUT: Duration = Duration::from_secs(6);

/// Retries of a request that found no connection or lost it: they bridge a restart of `btc_price`.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_millis(400))
    .with_total_delay(Some(Duration::from_secs(2)))
    .without_max_times()
    .with_jitter();

/// No quote is reused for longer: the largest `QUOTE_MAX_AGE_S`. It keeps times in the range of [`Instant`], whatever `btc_price` answers.
const MAX_REUSE: Duration = Duration::from_secs(24 * 60 * 60);

type Answer = Result<BtcRate, Arc<PriceError>>;

/// The rates of `btc_price`. Callers that ask for a currency at the same time share a request, and a quote is reused for as long as
/// `btc_price` allows. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    client: Arc<Client>,
    requests: PerCurrency<Coalesced<Context, Answer>>,
}

/// A rate, and until when it may be reused.
#[derive(Debug, Clone, Copy)]
struct FreshRate {
    rate: BtcRate,
    fresh_until: Instant,
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PriceError {
    #[error("btc_price did not answer")]
    Unreachable(#[from] reqwest::Error),
    #[error("btc_price answered {0}")]
    Refused(reqwest::StatusCode),
    #[error("btc_price quoted {0:?}")]
    WrongCurrency(String),
    #[error("btc_price quoted the rate {0:?}")]
    NotARate(String, #[source] MoneyError),
    #[error("asking btc_price was interrupted")]
    Interrupted,
}

#[derive(Deserialize)]
struct Quote {
    currency: String,
    rate: String,
}

impl Prices {
    /// Must be called inside the async runtime.
    pub(crate) fn new(btc_price: &Peer) -> anyhow::Result<Self> {
        let client = Arc::new(Client {
            http: client::client(TIMEOUT, btc_price.extra_ca.as_deref())?,
            url: btc_price.url("/buy"),
            latest: PerCurrency::default(),
        });
        let requests = PerCurrency::from_fn(|currency| {
            let client = Arc::clone(&client);
            Coalesced::new(usize::MAX, move |callers| {
                let client = Arc::clone(&client);
                async move { client.rate_for_all(currency, callers).await }
            })
        });
        Ok(Self { client, requests })
    }

    /// The market price of one BTC, if the latest quote may still be reused. Asks nobody.
    pub(crate) fn at_hand(&self, currency: Currency) -> Option<BtcRate> {
        let latest = (*self.client.latest(currency))?;
        (Instant::now() < latest.fresh_until).then_some(latest.rate)
    }

    /// The market price of one BTC. `btc_price` is asked after this call, not before.
    pub(crate) async fn ask(&self, currency: Currency) -> Answer {
        let answer = self.requests[currency].ask(Context::current()).await;
        answer.unwrap_or_else(|| Err(Arc::new(PriceError::Interrupted)))
    }
}

#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    url: String,
    latest: PerCurrency<Mutex<Option<FreshRate>>>,
}

impl Client {
    /// One answer for all callers. The request belongs to the trace of the first of them: the others have only the time in common.
    async fn rate_for_all(&self, currency: Currency, callers: Vec<Context>) -> Vec<Answer> {
        let first = callers.first().cloned().unwrap_or_default();
        let answer = self.rate(currency).with_context(first).await;
        if let Ok(fresh) = &answer {
            let mut latest = self.latest(currency);
            // A slow answer may come after that to a later request.
            if latest.is_none_or(|latest| latest.fresh_until < fresh.fresh_until) {
                *latest = Some(*fresh);
            }
        }
        vec![answer.map(|fresh| fresh.rate).map_err(Arc::new); callers.len()]
    }

    fn latest(&self, currency: Currency) -> MutexGuard<'_, Option<FreshRate>> {
        self.latest[currency]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn rate(&self, currency: Currency) -> Result<FreshRate, PriceError> {
        let is_restarting = |error: &PriceError| matches!(error, PriceError::Unreachable(error) if !error.is_timeout() && !error.is_decode());
        let rate = (|| self.ask(currency)).retry(RETRIES).when(is_restarting).await;
        if let Err(error) = &rate {
            tracing::warn!(event = "btc_price_client_failed", %currency, error = chain(error));
        }
        rate
    }

    async fn ask(&self, currency: Currency) -> Result<FreshRate, PriceError> {
        // The time that the answer takes is part of the age of the quote.
        let asked_at = Instant::now();
        let request = self.http.get(format!("{}?currency={currency}", self.url));
        let response = client::send(request, Recipient::Peer).await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(PriceError::Refused(response.status()));
        }
        let fresh_for = fresh_for(response.headers());
        let quote: Quote = response.json().await?;
        if quote.currency != currency.iso3() {
            return Err(PriceError::WrongCurrency(quote.currency));
        }
        match quote.rate.parse() {
            Ok(rate) => Ok(FreshRate {
                rate,
                fresh_until: asked_at + fresh_for,
            }),
            Err(error) => Err(PriceError::NotARate(quote.rate, error)),
        }
    }
}

/// How long `btc_price` allows a quote to be reused. Without the header: not at all.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let milliseconds = headers
        .get(FRESH_FOR_MS)
        .and_then(|text| text.to_str().ok()?.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(0)).min(MAX_REUSE)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_quote_is_reused_as_long_as_the_header_says_and_not_at_all_without_a_sensible_one() {
        for (value, expected) in [
            (None, Duration::ZERO),
            (Some("1437"), Duration::from_millis(1437)),
            (Some("-1"), Duration::ZERO),
            (Some("soon"), Duration::ZERO),
            (Some("18446744073709551615"), MAX_REUSE),
        ] {
            let headers = value.map(|value| (FRESH_FOR_MS, HeaderValue::from_static(value)));
            assert_eq!(fresh_for(&headers.into_iter().collect()), expected, "{value:?}");
        }
    }
}
