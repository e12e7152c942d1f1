//! The cluster as a library for tests and as a program, against the real binaries and servers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod harness;
mod native;
mod price_simulator;
mod servers;
