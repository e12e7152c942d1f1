//! The configuration, read from the environment.

use common::auth::Auth;
use common::endpoints::{Database, Listen, Peer, Queue};
use common::env::Env;

use crate::limits::OrderLimits;

/// The configuration of `create_buy_order`.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listen: Listen,
    pub(crate) write_model: Database,
    /// The service that reports when the schemas are up to date.
    pub(crate) migration: Peer,
    /// The broker that messages of the outbox are published to.
    pub(crate) queue: Queue,
    pub(crate) btc_price: Peer,
    /// How clients are told apart.
    pub(crate) auth: Auth,
    /// How small and how large orders may be, and how much of the book one client may have.
    pub(crate) limits: OrderLimits,
}

impl Config {
    /// Reads the configuration; faults are collected in `env`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            write_model: Database::from_env(env, "WRITE_MODEL_DB"),
            migration: Peer::from_env(env, "MIGRATION"),
            queue: Queue::from_env(env),
            btc_price: Peer::from_env(env, "BTC_PRICE"),
            auth: Auth::from_env(env),
            limits: OrderLimits::from_env(env),
        }
    }
}
