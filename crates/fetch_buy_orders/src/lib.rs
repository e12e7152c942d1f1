//! Serves pages of orders from the read model, newest first: `GET /buy_orders`.
//!
//! In reading order: [`config`], what the process does ([`app`]), the one endpoint ([`routes`]), the page it answers ([`page`]),
//! the statements that find its rows ([`db`]), how their failures are answered ([`error`]), and what is counted ([`metrics`]).

pub mod config;

pub mod app;

pub mod routes;

pub mod page;

pub mod db;
pub mod error;

pub mod metrics;
