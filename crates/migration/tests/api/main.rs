//! Black-box tests of `migration`: its binary on real databases, and the rules that its schemas enforce.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod accept_orders;
mod applying;
mod outbox;
mod read_model;
mod read_only;
mod roles;
mod support;
mod topology;
mod upgrade;
mod write_model;
