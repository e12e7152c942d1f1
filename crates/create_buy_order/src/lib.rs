//! `create_buy_order` accepts orders to buy BTC, exactly once, and relays them to the queue.
//!
//! The way of a request: `routes` reads it. If `price` has no quote at hand, `look_up` finds the order that the request repeats, or else
//! `price` asks for the rate. [`order`] computes the BTC, `limits` bounds it, and `batch` hands all drafts that arrive together to the
//! write model, whose function `accept_orders` finds the repeats and writes the new orders ([`db`]). Where many wait, clients take `turns`.
//! `relay` publishes the messages of the outbox.
//!
//! `metrics` is for monitoring. [`void`], [`republish`] and [`checksums`] are commands for operators: they take an order out of the book,
//! rebuild a lost read model, and compare it with the write model.

pub mod app;
pub mod arguments;
pub mod config;

mod error;
mod routes;

mod look_up;
mod price;

pub mod order;

mod limits;

mod batch;
pub mod db;
mod turns;

mod relay;

pub mod checksums;
pub mod republish;
pub mod void;

mod metrics;

/// The name of this service.
pub(crate) const NAME: &str = "create_buy_order";

#[cfg(any(test, feature = "fuzzing"))]
pub use routes::fuzz;
