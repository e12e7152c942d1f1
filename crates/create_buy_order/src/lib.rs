//! `create_buy_order` accepts orders to buy BTC, exactly once, and relays them to the queue.
//!
//! One request's way: [`routes`] reads it; [`look_up`] finds a repeat, which is answered at once; [`price`] asks for the rate; [`order`]
//! computes the BTC; [`batch`] hands the orders that arrive together to the write model, whose function `accept_orders` decides and writes
//! ([`db`]); [`relay`] publishes what it put into the outbox.
//! [`metrics`] is for who watches; [`republish`] and [`checksums`] are for an operator: a read model that was lost is rebuilt, and held
//! against the write model.

pub mod app;
pub mod arguments;
pub mod config;

pub mod error;
pub mod routes;

pub mod look_up;
pub mod price;

pub mod order;

pub mod batch;
pub mod db;

pub mod relay;

pub mod checksums;
pub mod republish;

pub mod metrics;
