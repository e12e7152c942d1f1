//! The client of Coinbase.
//!
//! An answer that is not exactly a price of BTC in the requested currency is an error: there is no guess and no default.

use std::time::Duration;

use common::endpoints::Peer;
use common::env::Env;
use common::http::client::{self, Recipient};
use common::money::{BtcRate, Currency, MoneyError};
use reqwest::header::{ACCEPT, RETRY_AFTER, USER_AGENT};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;

/// The kind of price, as Coinbase and the events name it: what a buyer pays.
pub(crate) const PRICE_TYPE: &str = "buy";

/// Longer bodies are refused without being read to the end. A price takes about 60 bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Values of a refused answer are logged up to this length, because the provider decides how long they are.
const MAX_QUOTED_CHARS: usize = 40;

/// The base URL of the price provider.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    peer: Peer,
    path: String,
}

impl Endpoint {
    /// The prices of `peer`, read from `CB_…`: here `CB_PROTOCOL` is https by default. Reads `CB_PATH`.
    pub(crate) fn new(mut peer: Peer, env: &mut Env) -> Self {
        if env.optional("CB_PROTOCOL").is_none() {
            // Other peers default to http, but the price provider is reached over the internet.
            peer.protocol = "https";
        }
        let path = env.string("CB_PATH");
        // It has no query and no fragment, and needs no escapes.
        let is_path = Url::parse(&format!("http://localhost{path}")).is_ok_and(|url| url.path() == path);
        if !path.is_empty() && !is_path {
            env.malformed("CB_PATH", &path, "is not a plain path that begins with a slash");
        }
        let path = path.trim_end_matches('/').to_owned();
        Self { peer, path }
    }

    /// `coinbase` or `simulator`. Derived from the host, so that it cannot be configured wrongly.
    pub(crate) fn source(&self) -> &'static str {
        let host = self.peer.host.trim_end_matches('.');
        if host == "coinbase.com" || host.ends_with(".coinbase.com") {
            "coinbase"
        } else {
            "simulator"
        }
    }

    pub(crate) fn url(&self, currency: Currency) -> String {
        let (path, currency) = (&self.path, currency.iso3());
        self.peer.url(&format!("{path}/{PRICE_TYPE}?currency={currency}"))
    }
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoinbaseError {
    /// No connection, a timeout, or a connection that broke.
    #[error("the price provider could not be asked")]
    Unreachable(#[source] reqwest::Error),
    /// Any status but 200. Redirects count too: only the configured endpoint may give prices.
    #[error("the price provider answered with status {status}")]
    Status {
        status: StatusCode,
        /// `Retry-After`, if it is a number of seconds.
        retry_after: Option<Duration>,
    },
    #[error("the price provider's answer is longer than {MAX_BODY_BYTES} bytes")]
    Oversize,
    #[error("the price provider's answer is not a price in JSON")]
    Malformed(#[source] serde_json::Error),
    #[error("the price provider answered the price of {base:?} in {currency:?}")]
    WrongPair { base: String, currency: String },
    #[error("the price provider's amount {amount:?} is not a price")]
    WrongAmount { amount: String, source: MoneyError },
    /// Further from the last good rate than `QUOTE_MAX_DEVIATION`.
    #[error("the price provider's rate {offered} is too far from the last good one, {last_good}")]
    Deviates { last_good: BtcRate, offered: BtcRate },
    /// The task that sent the request ended without a result.
    #[error("the request for a price was interrupted")]
    Interrupted,
}

/// What one BTC costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Price {
    /// The provider's own digits.
    pub(crate) text: String,
    pub(crate) rate: BtcRate,
}

/// The client of the price provider.
#[derive(Debug, Clone)]
pub(crate) struct Coinbase {
    client: reqwest::Client,
    pub(crate) endpoint: Endpoint,
}

impl Coinbase {
    /// A client of `endpoint`. `client` sets the timeout and must not follow redirects.
    pub(crate) fn new(client: reqwest::Client, endpoint: Endpoint) -> Self {
        Self { client, endpoint }
    }

    /// The current price of one BTC.
    ///
    /// # Errors
    /// When there is no answer, or it is not a price of BTC in `currency`.
    pub(crate) async fn buy_price(&self, currency: Currency) -> Result<Price, CoinbaseError> {
        let request = self
            .client
            .get(self.endpoint.url(currency))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("btc_price/", env!("CARGO_PKG_VERSION")));
        let response = client::send(request, Recipient::External)
            .await
            .map_err(CoinbaseError::Unreachable)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(CoinbaseError::Status {
                status,
                retry_after: retry_after(&response),
            });
        }
        let body = client::body_up_to(MAX_BODY_BYTES, response).await;
        let body = body
            .map_err(CoinbaseError::Unreachable)?
            .ok_or(CoinbaseError::Oversize)?;
        parse_price(&body, currency)
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    base: String,
    currency: String,
    amount: String,
}

fn parse_price(body: &[u8], requested: Currency) -> Result<Price, CoinbaseError> {
    let Answer { data } = serde_json::from_slice(body).map_err(CoinbaseError::Malformed)?;
    if data.base != "BTC" || data.currency != requested.iso3() {
        return Err(CoinbaseError::WrongPair {
            base: shortened(&data.base),
            currency: shortened(&data.currency),
        });
    }
    match data.amount.parse() {
        Ok(rate) => Ok(Price {
            text: data.amount,
            rate,
        }),
        Err(source) => Err(CoinbaseError::WrongAmount {
            amount: shortened(&data.amount),
            source,
        }),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(base: &str, currency: &str, amount: &str) -> Vec<u8> {
        format!(r#"{{"data":{{"base":"{base}","currency":"{currency}","amount":"{amount}"}}}}"#).into_bytes()
    }

    fn amount(amount: &str) -> Result<String, CoinbaseError> {
        parse_price(&answer("BTC", "EUR", amount), Currency::Eur).map(|price| price.text)
    }

    #[test]
    fn a_price_keeps_the_providers_own_digits() -> Result<(), CoinbaseError> {
        for text in ["7", "48478.880", "0.00000001", "999999999999.99999999"] {
            assert_eq!(amount(text)?, text);
        }
        Ok(())
    }

    #[test]
    fn an_amount_that_is_no_rate_is_refused() {
        // One for each rule of `BtcRate`, whose own tests have more.
        for text in ["", "1e5", "0", "-1", "0.000000001", "1000000000000"] {
            assert!(
                matches!(amount(text), Err(CoinbaseError::WrongAmount { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_price_of_something_else_is_refused() {
        for (base, currency) in [("ETH", "EUR"), ("BTC", "USD"), ("btc", "EUR"), ("", "")] {
            let parsed = parse_price(&answer(base, currency, "1.5"), Currency::Eur);
            assert!(
                matches!(parsed, Err(CoinbaseError::WrongPair { .. })),
                "{base} {currency}"
            );
        }
    }

    #[test]
    fn what_is_not_json_of_that_shape_is_refused() {
        for body in [
            "",
            "<html>",
            "null",
            "{}",
            r#"{"data":{"base":"BTC","currency":"EUR"}}"#,
            r#"{"data":{"base":"BTC","currency":"EUR","amount":48478.88}}"#,
            r#"{"data":{"base":"BTC","currency":"EUR","amount":"1","amount":"2"}}"#,
            r#"{"data":{"base":"BTC","currency":"EUR","amount":"1"}} trailing"#,
        ] {
            let parsed = parse_price(body.as_bytes(), Currency::Eur);
            assert!(matches!(parsed, Err(CoinbaseError::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn only_coinbase_itself_is_called_coinbase() {
        let source = |host: &str| {
            let mut env = Env::from_pairs([("CB_HOST", host), ("CB_PORT", "443")]);
            Endpoint::new(Peer::from_env(&mut env, "CB"), &mut env).source()
        };
        for (host, expected) in [
            ("coinbase.com", "coinbase"),
            ("api.coinbase.com", "coinbase"),
            ("API.Coinbase.COM", "coinbase"),
            ("api.coinbase.com.", "coinbase"),
            ("127.0.0.1", "simulator"),
            ("simulator", "simulator"),
            ("notcoinbase.com", "simulator"),
            ("coinbase.com.example.org", "simulator"),
            ("coinbase", "simulator"),
        ] {
            assert_eq!(source(host), expected, "{host}");
        }
    }
}
