//! What is promised of every body of `PUT /buy_order`.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest as _, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use common::http::{BodyFields, Problem};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::request::BuyOrderRequest;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// The order that is read from a body is what the body says, digit by digit; a refusal is JSON that a client can read.
///
/// # Panics
///
/// If that is not so.
pub fn put_body(data: &[u8]) {
    let body = Body::from(data.to_vec());
    let request = Request::put("/buy_order").header(CONTENT_TYPE, "application/json");
    let request = request.body(body).unwrap();
    let fields = RUNTIME.block_on(BodyFields::from_request(request, &()));
    match fields.and_then(BuyOrderRequest::read) {
        Ok(order) => check_order(&order, data),
        Err(problem) => check_refusal(problem),
    }
}

fn check_order(order: &BuyOrderRequest, body: &[u8]) {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // Fails where a name is not text; the order is then in the fields that are.
    let Ok(fields) = serde_json::from_slice::<HashMap<String, Box<RawValue>>>(body) else {
        return;
    };
    let text = |name: &str| {
        let literal = fields[name].get();
        serde_json::from_str::<String>(literal).unwrap_or_else(|_| literal.to_owned())
    };
    assert_eq!(order.currency.iso3(), text("currency"));
    assert_eq!(
        Uuid::parse_str(&text("idempotence_key")),
        Ok(order.idempotence_key)
    );
    assert_eq!(
        Decimal::from_str_exact(&text("amount")),
        Ok(order.amount.decimal())
    );
    let amount = order.amount.to_string();
    assert_eq!(amount.parse(), Ok(order.amount));
    assert_eq!(
        amount.split_once('.').map(|(_, cents)| cents.len()),
        Some(2),
        "{amount}"
    );
    let max_rate = fields.get("max_rate").filter(|literal| literal.get() != "null");
    assert_eq!(order.max_rate.is_some(), max_rate.is_some());
    if let Some(max_rate) = order.max_rate {
        assert_eq!(Decimal::from_str_exact(&text("max_rate")), Ok(max_rate.decimal()));
        assert_eq!(max_rate.to_string().parse(), Ok(max_rate));
    }
}

#[derive(Deserialize)]
struct Faults {
    detail: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    input: Box<RawValue>,
}

fn check_refusal(problem: Problem) {
    let answer = problem.into_response();
    let status = answer.status();
    let answer = RUNTIME
        .block_on(to_bytes(answer.into_body(), usize::MAX))
        .unwrap();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return;
    }
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let Faults { detail } = serde_json::from_slice(&answer).unwrap();
    assert!(!detail.is_empty());
    for Fault { input } in detail {
        if let Err(error) = serde_json::from_str::<Value>(input.get()) {
            // It is JSON all the same. This reader of it, unlike ours, calls itself for each bracket and makes floats of numbers.
            let error = error.to_string();
            let is_limit = ["recursion limit", "number out of range"]
                .iter()
                .any(|limit| error.starts_with(limit));
            assert!(is_limit, "{error}: {input}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("put_body", super::put_body);
    }
}
