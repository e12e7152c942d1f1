//! What every service of the cluster shares, and nothing that only one of them needs.
//!
//! In reading order: how a process starts and stops ([`service`]), where its configuration comes from ([`mod@env`], [`endpoints`]),
//! what it reports ([`logging`], [`metrics`], [`trace`]), how it answers ([`http`]), how it connects ([`net`]), what it waits for ([`database`], [`migrations`]), what travels on the
//! queue ([`broker`], [`buy_order_event`], [`trace_context`]), how requests share a round trip ([`coalesce`]), the money and time types that both models
//! speak ([`money`], [`timestamp`]), and what they are compared by ([`range_checksum`]).

pub mod service;

pub mod endpoints;
pub mod env;

pub mod logging;
pub mod metrics;
pub mod trace;

pub mod http;

pub mod net;

pub mod database;
pub mod migrations;
pub mod retry;

pub mod broker;
pub mod buy_order_event;
pub mod trace_context;

pub mod coalesce;

pub mod money;
pub mod timestamp;

pub mod range_checksum;
