//! What a browser is told each second.

use common::money::Currency;
use common::timestamp::serialize_rfc3339_micros;
use rust_decimal::Decimal;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::dead_letters::{self, DeadLetter};
use crate::exposition::{Exposition, Sample};
use crate::peers::Replica;
use crate::per_service::PerService;
use crate::rates::{Rates, rounded};
use crate::stations::{Depths, Station, judge, metrics};

/// Of money and prices.
const DECIMALS: u32 = 8;

/// How the cluster does.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct State {
    /// When the services were asked: RFC 3339, UTC, microseconds.
    #[serde(serialize_with = "serialize_rfc3339_micros")]
    at: OffsetDateTime,
    /// Every station, in the order of an order's way.
    stations: Vec<Station>,
    /// The total of all orders.
    book: Book,
    /// Of every currency.
    prices: Vec<LatestPrice>,
    /// Of the last 10 s.
    refusals: Vec<Refusals>,
    /// Messages that could not be projected.
    dead_letters: DeadLetters,
    /// What is plotted.
    pub(crate) point: Point,
}

/// The total of all orders, with 8 decimals; `null`: unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Book {
    /// BTC that were sold.
    total_btc: Option<String>,
    /// BTC that orders may still add.
    left_btc: Option<String>,
}

/// The latest price of a BTC.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct LatestPrice {
    /// ISO 4217.
    currency: &'static str,
    /// With 8 decimals; `null`: nobody has asked for it yet, or `btc_price` is away.
    rate: Option<String>,
    /// Its age in seconds.
    age_s: Option<f64>,
}

/// Requests that made no order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct Refusals {
    /// Why.
    reason: String,
    /// How many in a second.
    per_s: f64,
}

/// Messages that could not be projected.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct DeadLetters {
    /// How many are in the dead-letter queue; `null`: unknown.
    ready: Option<f64>,
    /// The newest since the start of each projector, newest first, at most 20.
    recent: Vec<DeadLetter>,
}

/// What is plotted: rates in a second, lags of the last 10 s, depths. `null`: unknown, or for lags: nothing was projected.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Point {
    /// Seconds since 1970.
    at: f64,
    accepted: Option<f64>,
    repeated: Option<f64>,
    refused: Option<f64>,
    projected: Option<f64>,
    pages: Option<f64>,
    lag_p50_s: Option<f64>,
    lag_p99_s: Option<f64>,
    outbox: Option<f64>,
    outbox_age_s: Option<f64>,
    queue: Option<f64>,
    dead_letters: Option<f64>,
}

impl State {
    /// What the services say at this time.
    pub(crate) fn of(read: &PerService<Vec<Replica>>, rates: &Rates, at: OffsetDateTime) -> Self {
        let depths = Depths::of(read);
        let told = read
            .read_model_sync
            .iter()
            .filter_map(|replica| replica.answers.as_ref());
        let refusals = rates.recent("buy_orders_refused_total").into_iter();
        Self {
            at,
            stations: judge(read, rates),
            book: Book {
                total_btc: amount(&read.create_buy_order, "order_book_btc"),
                left_btc: amount(&read.create_buy_order, "order_book_left_btc"),
            },
            prices: Currency::ALL
                .map(|currency| price(&read.btc_price, currency.iso3()))
                .into(),
            refusals: refusals
                .map(|(reason, per_s)| Refusals { reason, per_s })
                .collect(),
            dead_letters: DeadLetters {
                ready: depths.dead_letters,
                recent: dead_letters::newest(told.flat_map(|answers| &answers.dead_letters)),
            },
            point: point(&depths, rates, at),
        }
    }
}

fn point(depths: &Depths, rates: &Rates, at: OffsetDateTime) -> Point {
    let lag = |quantile| rates.quantile("projection_lag_seconds_bucket", quantile);
    Point {
        at: (at - OffsetDateTime::UNIX_EPOCH).as_seconds_f64(),
        accepted: rates.per_s("buy_orders_created_total"),
        repeated: rates.per_s("buy_orders_replayed_total"),
        refused: rates.per_s("buy_orders_refused_total"),
        projected: rates.labelled_per_s("projection_deliveries_total", "applied"),
        pages: rates.per_s("buy_order_pages_served_total"),
        lag_p50_s: lag(0.5),
        lag_p99_s: lag(0.99),
        outbox: depths.outbox,
        outbox_age_s: depths.outbox_age_s.map(rounded),
        queue: depths.queue,
        dead_letters: depths.dead_letters,
    }
}

/// A gauge of BTC that every replica shows, by the first that does.
fn amount(replicas: &[Replica], name: &str) -> Option<String> {
    metrics(replicas).find_map(|metrics| text(metrics.samples(name).next()?.decimal()?))
}

/// By the replica whose price is the youngest.
fn price(replicas: &[Replica], currency: &'static str) -> LatestPrice {
    let rate = |metrics: &Exposition| {
        let mut rates = metrics.samples("quote_rate");
        let of_currency = |sample: &&Sample| sample.label("currency") == Some(currency);
        text(rates.find(of_currency)?.decimal()?)
    };
    let known = metrics(replicas).filter_map(|metrics| {
        let age_s = metrics.labelled("quote_age_seconds", "currency", currency)?;
        Some((age_s, rate(metrics)?))
    });
    let (age_s, rate) = known.min_by(|one, other| one.0.total_cmp(&other.0)).unzip();
    LatestPrice {
        currency,
        rate,
        age_s: age_s.map(rounded),
    }
}

fn text(mut value: Decimal) -> Option<String> {
    value = value.round_dp(DECIMALS);
    value.rescale(DECIMALS);
    Some(value.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::SocketAddr;

    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::peers::{Answers, Readiness};

    fn replica(port: u16, metrics: &str) -> Replica {
        Replica {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            answers: Some(Answers {
                metrics: Some(Exposition::read(metrics.as_bytes())),
                readiness: Readiness::Ready,
                dead_letters: Vec::new(),
            }),
        }
    }

    fn state(read: &PerService<Vec<Replica>>) -> serde_json::Value {
        let at = datetime!(2026-11-28 23:40:00.123456 UTC);
        serde_json::to_value(State::of(read, &Rates::default(), at)).unwrap()
    }

    #[test]
    fn what_nobody_tells_is_null() {
        let state = state(&PerService::default());
        assert_eq!(state["at"], "2026-11-28T23:40:00.123456Z");
        assert_eq!(state["book"], json!({"total_btc": null, "left_btc": null}));
        assert_eq!(
            state["prices"][0],
            json!({"currency": "USD", "rate": null, "age_s": null})
        );
        assert_eq!(state["prices"].as_array().unwrap().len(), Currency::ALL.len());
        assert_eq!(state["dead_letters"], json!({"ready": null, "recent": []}));
        let point = state["point"].as_object().unwrap();
        for (name, value) in point {
            match name.as_str() {
                "at" => assert_eq!(*value, json!(1_795_909_200.123_456)),
                _ => assert!(value.is_null(), "{name} is {value}"),
            }
        }
    }

    #[test]
    fn amounts_and_prices_have_eight_decimals_and_a_price_is_the_youngest() {
        let quote = |age: &str, rate: &str| {
            format!("quote_age_seconds{{currency=\"USD\"}} {age}\nquote_rate{{currency=\"USD\"}} {rate}\n")
        };
        let book = "order_book_btc 12.3456789\norder_book_left_btc 87.6543211\n";
        let read = PerService {
            create_buy_order: vec![replica(1, book)],
            btc_price: vec![
                replica(2, &quote("9", "1")),
                replica(3, &quote("1.25", "48478.88")),
            ],
            ..PerService::default()
        };
        let state = state(&read);
        assert_eq!(
            state["book"],
            json!({"total_btc": "12.34567890", "left_btc": "87.65432110"})
        );
        let prices = state["prices"].as_array().unwrap();
        let usd = prices.iter().find(|price| price["currency"] == "USD").unwrap();
        assert_eq!(
            *usd,
            json!({"currency": "USD", "rate": "48478.88000000", "age_s": 1.25})
        );
    }
}
