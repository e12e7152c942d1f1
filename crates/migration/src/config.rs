//! What the service reads from its environment.

use common::endpoints::{Database, Listen};
use common::env::Env;

/// The configuration of `migration`, the one service that sees both databases.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where `/healthcheck` is answered once both schemas are up to date.
    pub listen: Listen,
    /// The golden source: `WRITE_MODEL_DB_…`.
    pub write_model: Database,
    /// What pages are served from: `READ_MODEL_DB_…`.
    pub read_model: Database,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_are_required_in_full() {
        let mut env = Env::from_pairs([("SERVICE_HOST", "::"), ("SERVICE_PORT", "80")]);
        let config = Config::from_env(&mut env);
        let faults = env
            .finish(config)
            .map_err(|faults| faults.to_string())
            .err()
            .unwrap_or_default();
        for model in ["WRITE_MODEL", "READ_MODEL"] {
            for part in ["HOST", "PORT", "NAME", "USER", "PWD"] {
                assert!(
                    faults.contains(&format!("{model}_DB_{part} ")),
                    "{model}_DB_{part} is not named in: {faults}"
                );
            }
        }
    }
}
