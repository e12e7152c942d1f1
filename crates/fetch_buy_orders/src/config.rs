//! The configuration, from the environment.

use common::auth::Auth;
use common::endpoints::{Database, Listen, Peer};
use common::env::Env;

/// The configuration of `fetch_buy_orders`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen: `SERVICE_…`.
    pub listen: Listen,
    /// The read model: `READ_MODEL_DB_…`.
    pub read_model: Database,
    /// The service that creates the schema: `MIGRATION_…`.
    pub migration: Peer,
    /// How clients are told apart: `AUTH_…`.
    pub auth: Auth,
}

impl Config {
    /// Reads `SERVICE_…`, `READ_MODEL_DB_…`, `MIGRATION_…` and `AUTH_…`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            read_model: Database::from_env(env, "READ_MODEL_DB"),
            migration: Peer::from_env(env, "MIGRATION"),
            auth: Auth::from_env(env),
        }
    }
}
