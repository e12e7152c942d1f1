//! Quotes BTC in a fiat currency: `GET /buy?currency=USD`.
//!
//! In reading order: what the environment sets ([`config`]), how the service is put together ([`app`]), what it
//! answers ([`routes`], [`error`]), when a quote is reused and when asked for anew ([`quote`]), and how Coinbase
//! is asked and its answer judged ([`coinbase`]); what is counted ([`metrics`]). It never invents a price.

pub mod config;

pub mod app;

pub mod error;
pub mod routes;

pub mod quote;

pub mod coinbase;

pub mod metrics;
