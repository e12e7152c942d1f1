//! A simulator of Coinbase's v2 prices API with fixed rates, and with every fault that tests need.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use common::money::Currency;
use serde::Deserialize;

use crate::background_server::BackgroundServer;
use crate::process::locked;

/// What the simulator answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Like Coinbase, with the set rates.
    Rates,
    /// Like Coinbase, but with this delay.
    Delay(Duration),
    /// This status with an empty body.
    Status(u16),
    /// This status with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// `200` with this body as `application/json`.
    Body(String),
    /// This status, content type and body.
    Raw(u16, String, String),
    /// `200` with an HTML page.
    Html,
    /// A price of another asset than BTC.
    WrongBase,
    /// A price in another currency than the requested one.
    WrongCurrency,
    /// This text as the amount.
    Amount(String),
    /// A correct answer with 1 MB of padding.
    Oversize,
    /// `302` to a path that answers correctly.
    Redirect,
    /// No answer: the request is accepted and hangs.
    Hang,
}

/// The state of the simulator, shared with its server.
#[derive(Debug, Clone)]
pub struct Rates(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rates: Mutex<BTreeMap<String, String>>,
    behaviour: Mutex<Behaviour>,
    requests: AtomicUsize,
}

impl Default for Rates {
    fn default() -> Self {
        let rates = Currency::ALL.map(|currency| {
            (
                currency.iso3().to_owned(),
                Self::default_rate(currency).to_owned(),
            )
        });
        Self(Arc::new(Shared {
            rates: Mutex::new(BTreeMap::from(rates)),
            behaviour: Mutex::new(Behaviour::Rates),
            requests: AtomicUsize::new(0),
        }))
    }
}

impl Rates {
    /// The rate of a currency until another one is set.
    #[must_use]
    pub const fn default_rate(currency: Currency) -> &'static str {
        match currency {
            Currency::Usd => "48478.88",
            Currency::Eur => "41191.91",
            Currency::Gbp => "35330.89",
        }
    }

    /// The environment variable that sets the rate of a currency.
    #[must_use]
    pub fn variable(currency: Currency) -> String {
        format!("SIMULATOR_RATE_{currency}")
    }

    /// Sets the rate of a currency: a decimal text, which is sent unchanged.
    pub fn set(&self, currency: &str, rate: &str) {
        locked(&self.0.rates).insert(currency.to_owned(), rate.to_owned());
    }

    /// The router of the API: any path that ends in `/buy` is the price to buy BTC.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/{*path}", axum::routing::get(answer))
            .with_state(self.clone())
    }

    fn price(&self, currency: &str) -> Response {
        let Some(rate) = locked(&self.0.rates).get(currency).cloned() else {
            let error = r#"{"errors":[{"id":"invalid_request","message":"Currency is invalid"}]}"#;
            return json(StatusCode::BAD_REQUEST, error.to_owned());
        };
        json(StatusCode::OK, price("BTC", currency, &rate, ""))
    }
}

/// A simulator on its own port and thread.
#[derive(Debug)]
pub struct PriceSimulator {
    rates: Rates,
    server: BackgroundServer,
}

impl PriceSimulator {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> anyhow::Result<Self> {
        let rates = Rates::default();
        let server = BackgroundServer::start(rates.router()).context("no price simulator")?;
        Ok(Self { rates, server })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Sets the rate of a currency: a decimal text, which is sent unchanged.
    pub fn set_rate(&self, currency: &str, rate: &str) {
        self.rates.set(currency, rate);
    }

    /// Sets what it answers from now on.
    pub fn answer_with(&self, behaviour: Behaviour) {
        *locked(&self.rates.0.behaviour) = behaviour;
    }

    /// The number of price requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.rates.0.requests.load(Ordering::SeqCst)
    }
}

#[derive(Deserialize)]
struct PriceQuery {
    #[serde(default)]
    currency: String,
}

async fn answer(State(rates): State<Rates>, uri: Uri, Query(query): Query<PriceQuery>) -> Response {
    if !uri.path().ends_with("/buy") {
        return StatusCode::NOT_FOUND.into_response();
    }
    rates.0.requests.fetch_add(1, Ordering::SeqCst);
    let behaviour = locked(&rates.0.behaviour).clone();
    let currency = query.currency.as_str();
    match behaviour {
        _ if uri.path().ends_with("/redirected/buy") => rates.price(currency),
        Behaviour::Rates => rates.price(currency),
        Behaviour::Delay(delay) => {
            tokio::time::sleep(delay).await;
            rates.price(currency)
        }
        Behaviour::Status(code) => status(code).into_response(),
        Behaviour::RetryAfter(code, seconds) => {
            (status(code), [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Behaviour::Body(body) => json(StatusCode::OK, body),
        Behaviour::Raw(code, content_type, body) => {
            (status(code), [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Behaviour::Html => {
            axum::response::Html("<html><body>Down for maintenance</body></html>").into_response()
        }
        Behaviour::WrongBase => json(StatusCode::OK, price("ETH", currency, "48478.88", "")),
        Behaviour::WrongCurrency => {
            let other = if currency == "EUR" { "USD" } else { "EUR" };
            json(StatusCode::OK, price("BTC", other, "48478.88", ""))
        }
        Behaviour::Amount(amount) => json(StatusCode::OK, price("BTC", currency, &amount, "")),
        Behaviour::Oversize => json(
            StatusCode::OK,
            price("BTC", currency, "48478.88", &"x".repeat(1_000_000)),
        ),
        Behaviour::Redirect => {
            let target = uri.to_string().replacen("/buy", "/redirected/buy", 1);
            (StatusCode::FOUND, [(header::LOCATION, target)]).into_response()
        }
        Behaviour::Hang => std::future::pending().await,
    }
}

fn price(base: &str, currency: &str, amount: &str, padding: &str) -> String {
    let mut data = serde_json::json!({"base": base, "currency": currency, "amount": amount});
    if !padding.is_empty() {
        data["padding"] = padding.into();
    }
    serde_json::json!({ "data": data }).to_string()
}

fn json(status: StatusCode, body: String) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        body,
    )
        .into_response()
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
