//! Black-box tests of `fetch_buy_orders` over HTTP: its binary on a real read model.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod arrivals;
mod common_routes;
mod faults;
mod plan;
mod sessions;
mod silence;
mod support;
mod walking;
