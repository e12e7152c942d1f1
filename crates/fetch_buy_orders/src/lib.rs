//! Serves pages of orders from the read model, newest first: `GET /buy_orders`.
//!
//! In reading order: [`config`], what the process does ([`app`]), the one endpoint ([`routes`]), the page it answers ([`page`]),
//! the statements that find its rows ([`db`]), and how their failures are answered ([`error`]).

pub mod config;

pub mod app;

pub mod routes;

pub mod page;

pub mod db;
pub mod error;
