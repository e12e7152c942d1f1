//! Requests for orders, for tests and benchmarks. Whoever does not check the shape of a request makes it here.

use std::fmt::Display;

use serde_json::{Value, json};

/// The body of `PUT /buy_order` for a new order.
#[must_use]
pub fn new_order(currency: &str, amount: &str) -> Value {
    order_with_key(currency, amount, uuid::Uuid::new_v4())
}

/// The body of `PUT /buy_order` with this `idempotence_key`.
#[must_use]
pub fn order_with_key(currency: &str, amount: &str, key: impl Display) -> Value {
    json!({"currency": currency, "amount": amount, "idempotence_key": key.to_string()})
}
