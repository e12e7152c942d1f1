//! What this service reads from the environment.

use common::endpoints::{Database, Listen, Peer, Queue};
use common::env::Env;

/// The configuration of `create_buy_order`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// The write model.
    pub write_model: Database,
    /// The service that tells when the schemas are up to date.
    pub migration: Peer,
    /// The broker that the outbox is relayed to.
    pub queue: Queue,
    /// The service that quotes prices.
    pub btc_price: Peer,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_names_all_that_is_missing() {
        let mut env = Env::from_pairs::<&str, &str>([]);
        let config = Config::from_env(&mut env);
        let faults = env
            .finish(config)
            .map(|_| ())
            .map_err(|faults| faults.to_string());
        for name in [
            "SERVICE_PORT",
            "WRITE_MODEL_DB_HOST",
            "WRITE_MODEL_DB_PWD",
            "MIGRATION_HOST",
            "Q_HOST",
            "Q_USER",
            "BTC_PRICE_PORT",
        ] {
            assert!(
                faults.as_ref().is_err_and(|text| text.contains(name)),
                "{name} is not named in {faults:?}"
            );
        }
    }
}
