//! The client of `btc_price`.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use common::endpoints::Peer;
use common::http::client::{self, Recipient};
use common::money::{BtcRate, Currency, MoneyError};
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

/// Asks `btc_price` for rates; cheap to clone.
#[derive(Debug, Clone)]
pub struct Prices {
    client: reqwest::Client,
    url: String,
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
}

#[derive(Deserialize)]
struct Quote {
    currency: String,
    rate: String,
}

impl Prices {
    /// A client of this service.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(btc_price: &Peer) -> anyhow::Result<Self> {
        Ok(Self {
            client: client::client(TIMEOUT, None)?,
            url: btc_price.url("/buy"),
        })
    }

    /// The market price of one BTC now.
    ///
    /// # Errors
    /// [`PriceError`]; the event `btc_price_client_failed` is reported.
    pub async fn rate(&self, currency: Currency) -> Result<BtcRate, PriceError> {
        let restarted = |error: &PriceError| matches!(error, PriceError::Unreachable(error) if !error.is_timeout() && !error.is_decode());
        let asked = (|| self.ask(currency)).retry(RESTART).when(restarted).await;
        if asked.is_err() {
            tracing::warn!(event = "btc_price_client_failed", %currency);
        }
        asked
    }

    async fn ask(&self, currency: Currency) -> Result<BtcRate, PriceError> {
        let request = self.client.get(format!("{}?currency={currency}", self.url));
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
