//! `create_buy_order` accepts orders to buy BTC, exactly once, and relays them to the queue.
//!
//! One request's way: [`routes`] reads it; [`look_up`] finds a repeat, which is answered at once; [`price`] asks for the rate; [`order`]
//! computes the BTC and decides; [`batch`] writes the orders that arrive together in one transaction, whose SQL is in [`db`]; [`outbox`]
//! publishes them.
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

pub mod outbox;

pub mod checksums;
pub mod republish;

pub mod metrics;
