//! The client of `btc_price`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use backon::{ExponentialBuilder, Retryable as _};
use common::coalesce::Coalesced;
use common::endpoints::Peer;
use common::http::FRESH_FOR_MS;
use common::http::client::{self, Recipient};
use common::money::{BtcRate, Currency, MoneyError};
use opentelemetry::Context;
use opentelemetry::trace::FutureExt as _;
use serde::Deserialize;

/// Longer than `btc_price` waits for its provider.
const TIMEOUT: Duration = Duration::from_secs(6);

/// A question that met a closed door, or crossed with the end of its connection, is asked again: for as long as `btc_price` takes to be
/// restarted.
const RESTART: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_millis(400))
    .with_total_delay(Some(Duration::from_secs(2)))
    .without_max_times()
    .with_jitter();

/// A quote is asked for anew after this time, whatever `btc_price` says.
const LONGEST_REUSE: Duration = Duration::from_secs(60);

type Answer = Result<BtcRate, Arc<PriceError>>;

/// The rates of `btc_price`: asked for once for all requests that arrive together, and reused for as long as `btc_price` allows; cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Prices {
    usd: Price,
    eur: Price,
    gbp: Price,
}

/// The price in one currency.
#[derive(Debug, Clone)]
struct Price {
    latest: Arc<Mutex<Option<Rate>>>,
    asked: Coalesced<Context, Answer>,
}

/// A rate, and until when it may be reused.
#[derive(Debug, Clone, Copy)]
struct Rate {
    rate: BtcRate,
    fresh_until: Instant,
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// `btc_price` cannot be reached, or not in time.
    #[error("btc_price did not answer")]
    Unreachable(#[from] reqwest::Error),
    /// `btc_price` has no price.
    #[error("btc_price answered {0}")]
    Refused(reqwest::StatusCode),
    /// `btc_price` quoted another currency.
    #[error("btc_price quoted {0:?}")]
    WrongCurrency(String),
    /// `btc_price` quoted what cannot be a rate.
    #[error("btc_price quoted the rate {0:?}")]
    NotARate(String, #[source] MoneyError),
    /// The question came to no end.
    #[error("asking btc_price was interrupted")]
    Interrupted,
}

#[derive(Deserialize)]
struct Quote {
    currency: String,
    rate: String,
}

impl Prices {
    /// A client of this service. Must be called inside the async runtime.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(btc_price: &Peer) -> anyhow::Result<Self> {
        let client = Client {
            http: client::client(TIMEOUT, None)?,
            url: btc_price.url("/buy"),
        };
        let price = |currency| {
            let client = client.clone();
            let latest = Arc::default();
            Price {
                latest: Arc::clone(&latest),
                asked: Coalesced::new(usize::MAX, move |askers| {
                    let (client, latest) = (client.clone(), Arc::clone(&latest));
                    async move { client.rate_for_all(currency, &askers, &latest).await }
                }),
            }
        };
        Ok(Self {
            usd: price(Currency::Usd),
            eur: price(Currency::Eur),
            gbp: price(Currency::Gbp),
        })
    }

    /// The market price of one BTC, if the latest quote may still be reused. Asks nobody.
    #[must_use]
    pub fn at_hand(&self, currency: Currency) -> Option<BtcRate> {
        let latest = *self
            .of(currency)
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latest
            .filter(|latest| Instant::now() < latest.fresh_until)
            .map(|latest| latest.rate)
    }

    /// The market price of one BTC now: `btc_price` is asked after this is called.
    ///
    /// # Errors
    /// [`PriceError`]; the event `btc_price_client_failed` is reported.
    pub async fn ask(&self, currency: Currency) -> Answer {
        let answer = self.of(currency).asked.ask(Context::current()).await;
        answer.unwrap_or_else(|| Err(Arc::new(PriceError::Interrupted)))
    }

    fn of(&self, currency: Currency) -> &Price {
        match currency {
            Currency::Usd => &self.usd,
            Currency::Eur => &self.eur,
            Currency::Gbp => &self.gbp,
        }
    }
}

#[derive(Debug, Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// One answer for all who ask, in the trace of the first: the others' have nothing in common with it but the time.
    async fn rate_for_all(
        &self,
        currency: Currency,
        askers: &[Context],
        latest: &Mutex<Option<Rate>>,
    ) -> Vec<Answer> {
        let first = askers.first().cloned().unwrap_or_default();
        let asked = self.rate(currency).with_context(first).await;
        if let Ok(rate) = &asked {
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(*rate);
        }
        vec![asked.map(|asked| asked.rate).map_err(Arc::new); askers.len()]
    }

    async fn rate(&self, currency: Currency) -> Result<Rate, PriceError> {
        let restarted = |error: &PriceError| matches!(error, PriceError::Unreachable(error) if !error.is_timeout() && !error.is_decode());
        let asked = (|| self.ask(currency)).retry(RESTART).when(restarted).await;
        if asked.is_err() {
            tracing::warn!(event = "btc_price_client_failed", %currency);
        }
        asked
    }

    async fn ask(&self, currency: Currency) -> Result<Rate, PriceError> {
        // The age of a quote counts from before the question: how long the answer took to come is part of it.
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
        match BtcRate::parse(&quote.rate) {
            Ok(rate) => Ok(Rate {
                rate,
                fresh_until: asked_at + fresh_for,
            }),
            Err(error) => Err(PriceError::NotARate(quote.rate, error)),
        }
    }
}

/// How long `btc_price` allows a quote to be reused: not at all, where it does not say.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let milliseconds = headers
        .get(FRESH_FOR_MS)
        .and_then(|text| text.to_str().ok()?.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(0)).min(LONGEST_REUSE)
}
