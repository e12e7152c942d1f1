//! How Coinbase is asked for a price, and its answer judged.
//!
//! Whatever is not exactly a price of BTC in the currency that was asked for is an error: no guess, no default.

use std::fmt;
use std::time::Duration;

use common::endpoints::Peer;
use common::http::client::{self, Recipient};
use common::money::{BtcRate, Currency, MoneyError};
use reqwest::header::{ACCEPT, RETRY_AFTER, USER_AGENT};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

/// The price asked for, as Coinbase and the events name it: what a buyer pays.
pub const PRICE_TYPE: &str = "buy";

/// A price is some 60 bytes; far more than that is not one, and is not read to its end.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Texts of an answer that did not pass go into the log; their length is not ours.
const MAX_QUOTED_CHARS: usize = 40;

/// Where prices come from.
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

    /// Whether a URL takes this text as its whole path.
    #[must_use]
    pub fn is_path(text: &str) -> bool {
        Url::parse(&format!("http://localhost{text}")).is_ok_and(|url| url.path() == text)
    }

    /// `coinbase` or `simulator`, derived from the host that is asked, so that it cannot say otherwise.
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
pub enum PriceError {
    /// No connection, no answer in time, or a connection that broke.
    #[error("the price provider could not be asked")]
    Unreachable(#[source] reqwest::Error),
    /// Anything but 200; a redirect too, because a price comes from the configured endpoint or not at all.
    #[error("the price provider answered with status {status}")]
    Status {
        /// The status of the answer.
        status: StatusCode,
        /// What its `Retry-After` asks for, when that is a number of seconds.
        retry_after: Option<Duration>,
    },
    /// A body that goes on and on.
    #[error("the price provider's answer is longer than {MAX_BODY_BYTES} bytes")]
    Oversize,
    /// A body of another shape.
    #[error("the price provider's answer is not a price in JSON")]
    Malformed(#[source] serde_json::Error),
    /// A price of something else.
    #[error("the price provider answered the price of {base:?} in {currency:?}")]
    WrongPair {
        /// What was priced.
        base: String,
        /// In which currency.
        currency: String,
    },
    /// A price that is none.
    #[error("the price provider's amount {amount:?} is not a price")]
    WrongAmount {
        /// The amount of the answer.
        amount: String,
        /// What is wrong with it.
        source: MoneyError,
    },
    /// The task that asked ended without an outcome.
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
    /// A client of `endpoint` by way of `client`, which sets the timeout and does not follow redirects.
    #[must_use]
    pub fn new(client: reqwest::Client, endpoint: Endpoint) -> Self {
        Self { client, endpoint }
    }

    /// [`Endpoint::source`] of the endpoint that is asked.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.endpoint.source()
    }

    /// What one BTC costs now: the provider's own text, which is a [`BtcRate`].
    ///
    /// # Errors
    ///
    /// No answer, or one that is not a price of BTC in `currency`.
    pub async fn buy_price(&self, currency: Currency) -> Result<String, PriceError> {
        let request = self
            .client
            .get(self.endpoint.url(currency))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("btc_price/", env!("CARGO_PKG_VERSION")));
        let response = client::send(request, Recipient::External)
            .await
            .map_err(PriceError::Unreachable)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(PriceError::Status {
                status,
                retry_after: retry_after(&response),
            });
        }
        judge(&body(response).await?, currency)
    }
}

/// Read piece by piece, because the length that a header announces may be absent or wrong.
async fn body(mut response: Response) -> Result<Vec<u8>, PriceError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(PriceError::Unreachable)? {
        if body.len() + piece.len() > MAX_BODY_BYTES {
            return Err(PriceError::Oversize);
        }
        body.extend_from_slice(&piece);
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

fn judge(body: &[u8], wanted: Currency) -> Result<String, PriceError> {
    let Answer {
        data: Price {
            base,
            currency,
            amount,
        },
    } = serde_json::from_slice(body).map_err(PriceError::Malformed)?;
    if base != "BTC" || currency != wanted.iso3() {
        return Err(PriceError::WrongPair {
            base: beginning(&base),
            currency: beginning(&currency),
        });
    }
    match BtcRate::parse(&amount) {
        Ok(_) => Ok(amount),
        Err(source) => Err(PriceError::WrongAmount {
            amount: beginning(&amount),
            source,
        }),
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use common::endpoints::Peer;
    use common::env::Env;
    use common::money::Currency;

    use super::{Endpoint, PriceError, judge};

    fn answer(base: &str, currency: &str, amount: &str) -> Vec<u8> {
        format!(r#"{{"data":{{"base":"{base}","currency":"{currency}","amount":"{amount}"}}}}"#).into_bytes()
    }

    fn amount(amount: &str) -> Result<String, PriceError> {
        judge(&answer("BTC", "EUR", amount), Currency::Eur)
    }

    #[test]
    fn a_price_keeps_the_providers_own_digits() -> Result<(), PriceError> {
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
    fn an_amount_that_is_no_positive_decimal_of_the_column_is_no_price() {
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
                matches!(amount(text), Err(PriceError::WrongAmount { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_price_of_something_else_is_refused() {
        for (base, currency) in [("ETH", "EUR"), ("BTC", "USD"), ("btc", "EUR"), ("", "")] {
            let verdict = judge(&answer(base, currency, "1.5"), Currency::Eur);
            assert!(
                matches!(verdict, Err(PriceError::WrongPair { .. })),
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
                    judge(body.as_bytes(), Currency::Eur),
                    Err(PriceError::Malformed(_))
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
