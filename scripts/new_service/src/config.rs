//! What the service reads from its environment.

use common::endpoints::{{{endpoints}}};
use common::env::Env;

/// The configuration of `{{name}}`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: `SERVICE_…`.
    pub listen: Listen,
    {{config_fields}}
}

impl Config {
    /// Reads the configuration; its faults stay in `env`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            {{config_values}}
        }
    }
}
