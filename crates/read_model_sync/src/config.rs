//! The configuration, from the environment.

use common::endpoints::{Database, Listen, Peer, Queue};
use common::env::Env;

/// The configuration of this service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve `/healthcheck`: `SERVICE_…`.
    pub listen: Listen,
    /// The read model: `READ_MODEL_DB_…`.
    pub read_model: Database,
    /// The service that creates the schema: `MIGRATION_…`.
    pub migration: Peer,
    /// The broker: `Q_…`.
    pub queue: Queue,
}

impl Config {
    /// Reads `SERVICE_…`, `READ_MODEL_DB_…`, `MIGRATION_…` and `Q_…`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            read_model: read_model(env),
            migration: Peer::from_env(env, "MIGRATION"),
            queue: Queue::from_env(env),
        }
    }
}

/// Reads `READ_MODEL_DB_…`.
pub fn read_model(env: &mut Env) -> Database {
    Database::from_env(env, "READ_MODEL_DB")
}
