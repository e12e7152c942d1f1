//! Serves pages of orders from the read model, newest first: `GET /buy_orders`.
//!
//! In reading order: [`config`], what the process does ([`app`]), the one endpoint ([`routes`]), the page it answers ([`page`]), how
//! pages are read ([`reader`]) and by which statements ([`db`]), how failures are answered ([`error`]), and what is counted ([`metrics`]).

pub mod config;

pub mod app;

pub mod routes;

pub mod page;

pub mod reader;

pub mod db;
pub mod error;

pub mod metrics;
