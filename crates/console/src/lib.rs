//! A page for those who operate the cluster: what each part does, and what is wrong with it.
//!
//! In reading order: [`config`], the start ([`app`]), the endpoints (`routes`), who may ask (`host_check`); what is asked each second (`watch`):
//! the services (`peers`), their metrics (`exposition`), rates and quantiles of them (`rates`), the judgement (`stations`, with links into the
//! `operations` that are shown, by `help`), what a browser gets (`state`, `viewers`, `page`); and an order that is placed from the page
//! (`pass_on`) on its way (`journeys`).

pub mod config;

pub mod app;

mod routes;

mod host_check;

mod watch;

mod dead_letters;
mod exposition;
mod peers;
mod per_service;
mod rates;

mod help;
mod stations;

mod operations;
mod page;
mod state;
mod viewers;

mod journeys;
mod pass_on;

#[cfg(any(test, feature = "fuzzing"))]
pub use {exposition::fuzz::exposition, journeys::fuzz::spans};
