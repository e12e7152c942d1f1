//! Quotes BTC in a fiat currency: `GET /buy?currency=USD`. It never invents a price.
//!
//! In reading order: the configuration ([`config`]), start-up ([`app`]), the endpoint (`routes`, `error`), the reuse of quotes (`quote`),
//! the bound on how far a price may jump (`deviation`), the client of Coinbase (`coinbase`), and the metrics (`metrics`).

pub mod config;

pub mod app;

mod error;
mod routes;

mod quote;

mod deviation;

mod coinbase;

mod metrics;

#[cfg(any(test, feature = "fuzzing"))]
pub use coinbase::fuzz;
