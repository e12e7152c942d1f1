//! The client of Coinbase.
//!
//! An answer that is not exactly a price of BTC in the requested currency is an error: there is no guess and no default.

use std::fmt;
use std::time::Duration;

use common::endpoints::Peer;
use common::http::client::{self, Recipient};
use common::money::{BtcRate, Currency, MoneyError};
use reqwest::header::{ACCEPT, RETRY_AFTER, USER_AGENT};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

/// The kind of price, as Coinbase and the events name it: what a buyer pays.
pub const PRICE_TYPE: &str = "buy";

/// Longer bodies are refused without being read to the end. A price takes about 60 bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Values of a refused answer are logged up to this length, because the provider decides how long they are.
const MAX_QUOTED_CHARS: usize = 40;

/// The base URL of the price provider.
#[derive(Debug, Clone)]
pub struct Endpoint {
    peer: Peer,
    path: String,
}

impl Endpoint {
    /// The prices under `path` of `peer`.
    #[must_use]
    pub fn new(peer: Peer, path: &str) -> Self {
        Self {
            peer,
            path: path.trim_end_matches('/').to_owned(),
        }
    }

    /// Whether this text is a URL path: it has no query, no fragment and needs no escapes.
    #[must_use]
    pub fn is_path(text: &str) -> bool {
        Url::parse(&format!("http://localhost{text}")).is_ok_and(|url| url.path() == text)
    }

    /// `coinbase` or `simulator`. Derived from the host, so that it cannot be configured wrongly.
    #[must_use]
    pub fn source(&self) -> &'static str {
        let host = self.peer.host.to_string();
        let host = host.trim_end_matches('.');
        if host == "coinbase.com" || host.ends_with(".coinbase.com") {
            "coinbase"
        } else {
            "simulator"
        }
    }

    fn url(&self, currency: Currency) -> String {
        self.peer.url(&format!(
            "{}/{PRICE_TYPE}?currency={}",
            self.path,
            currency.iso3()
        ))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.peer.url(&self.path))
    }
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub enum CoinbaseError {
    /// No connection, a timeout, or a connection that broke.
    #[error("the price provider could not be asked")]
    Unreachable(#[source] reqwest::Error),
    /// Any status but 200. Redirects count too: only the configured endpoint may give prices.
    #[error("the price provider answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// `Retry-After`, if it is a number of seconds.
        retry_after: Option<Duration>,
    },
    /// A body that is too long.
    #[error("the price provider's answer is longer than {MAX_BODY_BYTES} bytes")]
    Oversize,
    /// A body that does not have the expected JSON shape.
    #[error("the price provider's answer is not a price in JSON")]
    Malformed(#[source] serde_json::Error),
    /// A price of another asset, or in another currency.
    #[error("the price provider answered the price of {base:?} in {currency:?}")]
    WrongPair {
        /// The asset, as received.
        base: String,
        /// The currency, as received.
        currency: String,
    },
    /// An amount that is not a [`BtcRate`].
    #[error("the price provider's amount {amount:?} is not a price")]
    WrongAmount {
        /// The amount, as received.
        amount: String,
        /// What is wrong with it.
        source: MoneyError,
    },
    /// The task that sent the request ended without a result.
    #[error("the request for a price was interrupted")]
    Interrupted,
}

/// The client of the price provider.
#[derive(Debug, Clone)]
pub struct Coinbase {
    client: reqwest::Client,
    endpoint: Endpoint,
}

impl Coinbase {
    /// A client of `endpoint`. `client` sets the timeout and must not follow redirects.
    #[must_use]
    pub fn new(client: reqwest::Client, endpoint: Endpoint) -> Self {
        Self { client, endpoint }
    }

    /// [`Endpoint::source`] of the endpoint.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.endpoint.source()
    }

    /// The current price of one BTC: the provider's own text, checked to be a [`BtcRate`].
    ///
    /// # Errors
    /// When there is no answer, or it is not a price of BTC in `currency`.
    pub async fn buy_price(&self, currency: Currency) -> Result<String, CoinbaseError> {
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
        parse_price(&read_body(response).await?, currency)
    }
}

/// Reads the body in chunks, because `Content-Length` may be absent or wrong.
async fn read_body(mut response: Response) -> Result<Vec<u8>, CoinbaseError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(CoinbaseError::Unreachable)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(CoinbaseError::Oversize);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
struct Answer {
    data: Price,
}

#[derive(Deserialize)]
struct Price {
    base: String,
    currency: String,
    amount: String,
}

fn parse_price(body: &[u8], requested: Currency) -> Result<String, CoinbaseError> {
    let Answer {
        data: Price {
            base,
            currency,
            amount,
        },
    } = serde_json::from_slice(body).map_err(CoinbaseError::Malformed)?;
    if base != "BTC" || currency != requested.iso3() {
        return Err(CoinbaseError::WrongPair {
            base: shortened(&base),
            currency: shortened(&currency),
        });
    }
    match amount.parse::<BtcRate>() {
        Ok(_) => Ok(amount),
        Err(source) => Err(CoinbaseError::WrongAmount {
            amount: shortened(&amount),
            source,
        }),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use common::endpoints::Peer;
    use common::env::Env;
    use common::money::Currency;

    use super::{CoinbaseError, Endpoint, parse_price};

    fn answer(base: &str, currency: &str, amount: &str) -> Vec<u8> {
        format!(r#"{{"data":{{"base":"{base}","currency":"{currency}","amount":"{amount}"}}}}"#).into_bytes()
    }

    fn amount(amount: &str) -> Result<String, CoinbaseError> {
        parse_price(&answer("BTC", "EUR", amount), Currency::Eur)
    }

    #[test]
    fn a_price_keeps_the_providers_own_digits() -> Result<(), CoinbaseError> {
        for text in [
            "48478.88",
            "48478.880",
            "0.00000001",
            "999999999999.99999999",
            "7",
        ] {
            assert_eq!(amount(text)?, text);
        }
        Ok(())
    }

    #[test]
    fn an_amount_that_is_not_a_positive_decimal_of_the_column_is_refused() {
        for text in [
            "0",
            "0.00",
            "-1",
            "+1",
            "1e5",
            "1E5",
            "NaN",
            "Infinity",
            "",
            " 1",
            "1 ",
            "1.",
            ".5",
            "1_000",
            "1,5",
            "0x10",
            "0.000000001",
            "1000000000000",
            "١",
        ] {
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
            assert!(
                matches!(
                    parse_price(body.as_bytes(), Currency::Eur),
                    Err(CoinbaseError::Malformed(_))
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn only_coinbase_itself_is_called_coinbase() {
        let source = |host: &str| {
            let mut env = Env::from_pairs([("CB_HOST", host), ("CB_PORT", "443")]);
            Endpoint::new(Peer::from_env(&mut env, "CB"), "/v2/prices").source()
        };
        for host in [
            "coinbase.com",
            "api.coinbase.com",
            "API.Coinbase.COM",
            "api.coinbase.com.",
        ] {
            assert_eq!(source(host), "coinbase", "{host}");
        }
        for host in [
            "127.0.0.1",
            "simulator",
            "notcoinbase.com",
            "coinbase.com.example.org",
            "coinbase",
        ] {
            assert_eq!(source(host), "simulator", "{host}");
        }
    }
}
