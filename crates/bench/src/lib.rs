//! The benchmarks: `./bench.sh`. They start a cluster of release binaries on servers that are as durable as in production, and put load on
//! it. Each figure is compared with that of the bare servers doing the same work in the same run, so that ratios hold on a noisy machine.
//!
//! In reading order: [`groups`] is what is measured, one module per group; [`mod@bench`] is what they share. [`wrk`] generates load,
//! [`pgbench`] does the same work without the services, [`constant`] is an HTTP server without work, [`bare_queue`] is the broker alone;
//! [`history`] fills databases with orders; [`processes`], [`commits`] and [`spent`] read what it cost, [`management`] queries the broker.
//! [`figures`] collects, [`targets`] compares, [`machine`] describes the machine, [`report`] writes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: its progress goes to the terminal"
)]
#![allow(
    clippy::float_arithmetic,
    reason = "rates, ratios and latencies; there is no money here"
)]

pub mod groups;

pub mod bare_queue;
pub mod bench;
pub mod command;
pub mod commits;
pub mod constant;
pub mod history;
pub mod management;
pub mod pgbench;
pub mod processes;
pub mod spent;
pub mod wrk;

pub mod figures;
pub mod machine;
pub mod report;
pub mod targets;
