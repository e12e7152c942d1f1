//! The client against a real forward server (npm's `@fluent-org/logger`), and against servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod delivery;
mod misbehaving;
mod outages;
mod server;
mod support;
