//! What the environment says.

use common::endpoints::{Database, Listen, Peer, Queue};
use common::env::Env;

/// The configuration of this service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where `/healthcheck` is served.
    pub listen: Listen,
    /// The database that is written to.
    pub read_model: Database,
    /// The service that creates the schema.
    pub migration: Peer,
    /// Where the events come from.
    pub queue: Queue,
}

impl Config {
    /// Reads `SERVICE_…`, `READ_MODEL_DB_…`, `MIGRATION_…` and `Q_…`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            read_model: Database::from_env(env, "READ_MODEL_DB"),
            migration: Peer::from_env(env, "MIGRATION"),
            queue: Queue::from_env(env),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_names_all_that_is_missing() {
        let mut env = Env::from_pairs::<&str, &str>([]);
        let config = Config::from_env(&mut env);
        let faults = env.finish(config).unwrap_err().to_string();
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "READ_MODEL_DB_HOST",
            "READ_MODEL_DB_PORT",
            "READ_MODEL_DB_NAME",
            "READ_MODEL_DB_USER",
            "READ_MODEL_DB_PWD",
            "MIGRATION_HOST",
            "MIGRATION_PORT",
            "Q_HOST",
            "Q_PORT",
            "Q_USER",
            "Q_PWD",
        ] {
            assert!(faults.contains(name), "{name} is not in: {faults}");
        }
    }
}
