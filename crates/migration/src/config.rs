//! The configuration, from the environment.

use common::endpoints::{Database, Listen};
use common::env::Env;

/// The configuration of `migration`, the only service that connects to both databases.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listen: Listen,
    pub(crate) write_model: Database,
    pub(crate) read_model: Database,
}

impl Config {
    /// Reads `SERVICE_…`, `WRITE_MODEL_DB_…` and `READ_MODEL_DB_…`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            write_model: Database::from_env(env, "WRITE_MODEL_DB"),
            read_model: Database::from_env(env, "READ_MODEL_DB"),
        }
    }
}
