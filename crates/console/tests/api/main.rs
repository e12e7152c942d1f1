//! Black-box tests of `console`: its binary beside the services that it asks.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod dead_letters;
mod orders;
mod page;
mod stations;
mod support;
mod tls;
mod viewers;
