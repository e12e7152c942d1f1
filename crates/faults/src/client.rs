//! A client of the cluster: sends requests and reads the answers.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use uuid::Uuid;

use crate::ledger::{Identity, Order, Outcome};

/// Longer than any request may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long our connections stay idle. Shorter than the wait for the services to release resources, as these include our connections.
const IDLE: Duration = Duration::from_secs(5);

/// Sends requests to the replicas of the two public services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    create: Vec<String>,
    fetch: Vec<String>,
}

/// Why a request got no usable answer.
#[derive(Debug)]
pub enum Failed {
    /// Nothing listens at the address.
    NotAccepted(String),
    /// The connection was accepted, but there was no answer, or `503`.
    NotAnswered(String),
    /// An answer that must never be given.
    Wrong(String),
}

/// A page of orders.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Newest first.
    pub rows: Vec<Order>,
    /// The cursor of the next page.
    pub last_reference: Option<Uuid>,
}

#[derive(Deserialize)]
struct Answer {
    idempotence_key: Uuid,
    buy_order: Order,
}

#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

impl Client {
    /// A client of the replicas at these URLs, which reuses connections. It sends the header `authorization` with each request, if there is one.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(create: Vec<String>, fetch: Vec<String>, authorization: HeaderMap) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().pool_idle_timeout(IDLE);
        Self::with(http.default_headers(authorization), create, fetch)
    }

    /// The same with a new connection for each request. A request on a reused connection can cross with the server closing it, which no
    /// server can prevent. Without reuse a request that has a connection was accepted.
    ///
    /// # Errors
    /// As there.
    pub fn without_reuse(
        create: Vec<String>,
        fetch: Vec<String>,
        authorization: HeaderMap,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0);
        Self::with(http.default_headers(authorization), create, fetch)
    }

    fn with(http: reqwest::ClientBuilder, create: Vec<String>, fetch: Vec<String>) -> anyhow::Result<Self> {
        let http = http
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("no HTTP client")?;
        Ok(Self { http, create, fetch })
    }

    /// The number of replicas that accept orders.
    #[must_use]
    pub fn create_replicas(&self) -> usize {
        self.create.len()
    }

    /// Places an order with the replica of this index or, if it does not listen, with the next one, as a load balancer would. Returns the
    /// outcome, and the answer if it is one that must never be given.
    pub async fn place(
        &self,
        identity: &Identity,
        amount: &str,
        replica: usize,
    ) -> (Outcome, Option<String>) {
        match self
            .in_turn(&self.create, replica, async |url| {
                self.put(url, identity, amount).await
            })
            .await
        {
            Ok(outcome) => (outcome, None),
            Err(Failed::NotAccepted(why) | Failed::NotAnswered(why)) => (Outcome::Unknown(why), None),
            Err(Failed::Wrong(what)) => (Outcome::Unknown(what.clone()), Some(what)),
        }
    }

    async fn put(&self, url: &str, identity: &Identity, amount: &str) -> Result<Outcome, Failed> {
        let body = cluster::order_with_key(identity.currency, amount, identity.key);
        let (status, text) = answer(self.http.put(format!("{url}/buy_order")).json(&body)).await?;
        match status {
            StatusCode::OK => match serde_json::from_str::<Answer>(&text) {
                Ok(answer) if answer.idempotence_key == identity.key => {
                    Ok(Outcome::Acknowledged(answer.buy_order))
                }
                _ => Err(Failed::Wrong(format!(
                    "an answer without the requested order: {text}"
                ))),
            },
            StatusCode::CONFLICT => Ok(voided(&text).unwrap_or(Outcome::Refused)),
            _ => Err(Failed::Wrong(format!("{status}: {text}"))),
        }
    }

    /// Reads a page from the replica of this index or the next one that listens.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn page(&self, after: Option<Uuid>, size: usize, replica: usize) -> Result<Page, Failed> {
        self.in_turn(&self.fetch, replica, async |url| {
            let mut url = format!("{url}/buy_orders?page_size={size}");
            if let Some(after) = after {
                url.push_str(&format!("&last_reference={after}"));
            }
            let (status, text) = answer(self.http.get(url)).await?;
            if status != StatusCode::OK {
                return Err(Failed::Wrong(format!("{status}: {text}")));
            }
            serde_json::from_str(&text).map_err(|error| Failed::Wrong(format!("no page ({error}): {text}")))
        })
        .await
    }

    /// Whether every replica of `fetch_buy_orders` shows this order.
    pub async fn shown_by_all(&self, order: Uuid) -> bool {
        for url in &self.fetch {
            let request = self
                .http
                .get(format!("{url}/buy_orders?page_size=1&last_reference={order}"));
            if !matches!(answer(request).await, Ok((StatusCode::OK, _))) {
                return false;
            }
        }
        true
    }

    async fn in_turn<T>(
        &self,
        replicas: &[String],
        first: usize,
        ask: impl AsyncFn(&str) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let mut refused = Failed::NotAccepted("there is no replica".to_owned());
        for offset in 0..replicas.len() {
            match ask(&replicas[(first + offset) % replicas.len()]).await {
                Err(Failed::NotAccepted(why)) => refused = Failed::NotAccepted(why),
                outcome => return outcome,
            }
        }
        Err(refused)
    }
}

/// The outcome, if a refusal is due to a void.
fn voided(text: &str) -> Option<Outcome> {
    let Refusal { detail } = serde_json::from_str(text).ok()?;
    let (id, reason) = detail.strip_prefix("the order ")?.split_once(" was voided: ")?;
    Some(Outcome::Voided {
        id: id.parse().ok()?,
        reason: reason.to_owned(),
    })
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(StatusCode, String), Failed> {
    let response = request.send().await.map_err(|error| {
        let why = describe(&error);
        if error.is_connect() {
            Failed::NotAccepted(why)
        } else {
            Failed::NotAnswered(why)
        }
    })?;
    let status = response.status();
    let retry_after = response.headers().contains_key("retry-after");
    let text = response
        .text()
        .await
        .map_err(|error| Failed::NotAnswered(describe(&error)))?;
    match status {
        StatusCode::SERVICE_UNAVAILABLE if retry_after => Err(Failed::NotAnswered(text)),
        StatusCode::SERVICE_UNAVAILABLE => Err(Failed::Wrong(format!("503 without Retry-After: {text}"))),
        _ => Ok((status, text)),
    }
}

fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_due_to_a_void_is_told_from_one_due_to_the_cap() {
        let text =
            r#"{"detail":"the order 3b14efb6-041f-4d31-b35a-37c82333af36 was voided: it was voided: twice"}"#;
        let expected = Outcome::Voided {
            id: uuid::uuid!("3b14efb6-041f-4d31-b35a-37c82333af36"),
            reason: "it was voided: twice".to_owned(),
        };
        assert_eq!(voided(text), Some(expected));
        for text in [
            r#"{"detail":"the order would take the book past 100 BTC"}"#,
            r#"{"detail":"the order 7 was voided: twice"}"#,
            "409",
        ] {
            assert_eq!(voided(text), None, "{text}");
        }
    }
}
