//! Serves pages of orders from the read model, newest first: `GET /buy_orders`.
//!
//! In reading order: [`config`], the start ([`app`]), the endpoint (`routes`), its response ([`page`]), the reader of pages ([`reader`]),
//! the wait for an order (`arrivals`), SQL statements ([`db`]), errors (`error`) and `metrics`.

pub mod config;

pub mod app;

mod routes;

pub mod page;

pub mod reader;

mod arrivals;

pub mod db;
mod error;

mod metrics;

#[cfg(any(test, feature = "fuzzing"))]
pub use routes::fuzz;
