//! The client of `btc_price`.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use common::coalesce::Coalesced;
use common::endpoints::Peer;
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

type Answer = Result<BtcRate, Arc<PriceError>>;

/// Asks `btc_price` for rates, once for all who want to know at the same time; cheap to clone.
#[derive(Debug, Clone)]
pub struct Prices {
    usd: Coalesced<Context, Answer>,
    eur: Coalesced<Context, Answer>,
    gbp: Coalesced<Context, Answer>,
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
        let coalesced = |currency| {
            let client = client.clone();
            Coalesced::new(usize::MAX, move |askers| {
                let client = client.clone();
                async move { client.rate_for_all(currency, &askers).await }
            })
        };
        Ok(Self {
            usd: coalesced(Currency::Usd),
            eur: coalesced(Currency::Eur),
            gbp: coalesced(Currency::Gbp),
        })
    }

    /// The market price of one BTC now: `btc_price` is asked after this is called.
    ///
    /// # Errors
    /// [`PriceError`]; the event `btc_price_client_failed` is reported.
    pub async fn rate(&self, currency: Currency) -> Answer {
        let prices = match currency {
            Currency::Usd => &self.usd,
            Currency::Eur => &self.eur,
            Currency::Gbp => &self.gbp,
        };
        let answer = prices.ask(Context::current()).await;
        answer.unwrap_or_else(|| Err(Arc::new(PriceError::Interrupted)))
    }
}

#[derive(Debug, Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// One answer for all who ask, in the trace of the first: the others' have nothing in common with it but the time.
    async fn rate_for_all(&self, currency: Currency, askers: &[Context]) -> Vec<Answer> {
        let first = askers.first().cloned().unwrap_or_default();
        let asked = self.rate(currency).with_context(first).await;
        vec![asked.map_err(Arc::new); askers.len()]
    }

    async fn rate(&self, currency: Currency) -> Result<BtcRate, PriceError> {
        let restarted = |error: &PriceError| matches!(error, PriceError::Unreachable(error) if !error.is_timeout() && !error.is_decode());
        let asked = (|| self.ask(currency)).retry(RESTART).when(restarted).await;
        if asked.is_err() {
            tracing::warn!(event = "btc_price_client_failed", %currency);
        }
        asked
    }

    async fn ask(&self, currency: Currency) -> Result<BtcRate, PriceError> {
        let request = self.http.get(format!("{}?currency={currency}", self.url));
        let response = client::send(request, Recipient::Peer).await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(PriceError::Refused(response.status()));
        }
        let quote: Quote = response.json().await?;
        if quote.currency != currency.iso3() {
            return Err(PriceError::WrongCurrency(quote.currency));
        }
        BtcRate::parse(&quote.rate).map_err(|error| PriceError::NotARate(quote.rate, error))
    }
}
