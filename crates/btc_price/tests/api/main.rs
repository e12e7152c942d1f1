//! `btc_price` as its clients see it: the real binary, with a simulator instead of Coinbase.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bad_answers;
mod buy;
mod configuration;
mod deviation;
mod docs;
mod lifecycle;
mod quote_reuse;
mod service;
mod tls;
