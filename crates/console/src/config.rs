//! The configuration, from the environment.

use std::path::PathBuf;

use common::endpoints::{self, Listen};
use common::env::Env;

use crate::per_service::PerService;

/// The configuration of `console`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen: `SERVICE_…`.
    pub listen: Listen,
    /// The services that are asked.
    pub peers: PerService<Peer>,
    /// The authorities to trust besides the public ones: `EXTRA_CA_FILE`.
    pub extra_ca: Option<PathBuf>,
    /// The name by which the services reach this one: `CONSOLE_HOST`.
    pub own_name: Option<String>,
}

impl Config {
    /// Reads `SERVICE_…`, `EXTRA_CA_FILE`, `CONSOLE_HOST`, and host and port of each service.
    pub fn from_env(env: &mut Env) -> Self {
        let listen = Listen::from_env(env);
        let ops_port = listen.ops_port;
        Self {
            listen,
            peers: PerService {
                migration: Peer::from_env(env, "MIGRATION", ops_port),
                btc_price: Peer::from_env(env, "BTC_PRICE", ops_port),
                create_buy_order: Peer::from_env(env, "CREATE_BUY_ORDER", ops_port),
                read_model_sync: Peer::from_env(env, "READ_MODEL_SYNC", ops_port),
                fetch_buy_orders: Peer::from_env(env, "FETCH_BUY_ORDERS", ops_port),
            },
            extra_ca: extra_ca(env),
            own_name: env.optional_host("CONSOLE_HOST"),
        }
    }
}

fn extra_ca(env: &Env) -> Option<PathBuf> {
    env.optional("EXTRA_CA_FILE").map(PathBuf::from)
}

/// A service that the console asks: `{PREFIX}_HOST`, `{PREFIX}_PORT`. All services share `OPS_PORT`, and speak TLS if `SERVICE_TLS_CERT_FILE`
/// is set.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where clients ask it.
    pub clients: endpoints::Peer,
    /// Where operators ask it.
    pub operators: endpoints::Peer,
}

impl Peer {
    fn from_env(env: &mut Env, prefix: &str, ops_port: Option<u16>) -> Self {
        let protocol = if env.optional("SERVICE_TLS_CERT_FILE").is_some() {
            "https"
        } else {
            "http"
        };
        let clients = endpoints::Peer {
            protocol,
            host: env.host(&format!("{prefix}_HOST")),
            port: env.port(&format!("{prefix}_PORT")),
            extra_ca: extra_ca(env),
        };
        let operators = endpoints::Peer {
            port: ops_port.unwrap_or(clients.port),
            ..clients.clone()
        };
        Self { clients, operators }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn peer(variables: &[(&str, &str)], ops_port: Option<u16>) -> Peer {
        let required = [("X_HOST", "::1"), ("X_PORT", "8080")];
        let mut env = Env::from_pairs(required.iter().chain(variables).copied());
        let peer = Peer::from_env(&mut env, "X", ops_port);
        env.finish(peer).unwrap()
    }

    #[test]
    fn operators_ask_on_the_port_of_clients_unless_there_is_one_for_them() {
        let same = peer(&[], None);
        assert_eq!(same.operators.url("/readyz"), "http://[::1]:8080/readyz");
        let apart = peer(&[], Some(9000));
        assert_eq!(apart.operators.url("/readyz"), "http://[::1]:9000/readyz");
        assert_eq!(apart.clients.url("/buy_order"), "http://[::1]:8080/buy_order");
    }

    #[test]
    fn services_speak_tls_if_they_have_a_certificate() {
        let encrypted = peer(&[("SERVICE_TLS_CERT_FILE", "/run/secrets/certificate")], None);
        assert_eq!(encrypted.operators.url("/"), "https://[::1]:8080/");
    }
}
