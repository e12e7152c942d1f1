//! The environment contract of `.env`, with addresses of this machine instead of compose's network.

use std::collections::BTreeMap;
use std::env::VarError;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use common::money::Currency;

use super::env_file::parse;
use crate::address::{DatabaseAddress, Owner};
use crate::ports::{Lease, is_free};
use crate::prices::Rates;
use crate::service::Service;

/// The variables of the services, and the ports for people.
#[derive(Debug)]
pub(crate) struct Contract {
    variables: BTreeMap<String, String>,
    ports: BTreeMap<&'static str, u16>,
    // The ports that are not configured.
    _leases: Vec<Lease>,
}

/// The ports on the host: the same as compose publishes.
const PUBLISHED: [&str; 6] = [
    "CREATE_BUY_ORDER_EXT_PORT",
    "FETCH_BUY_ORDERS_EXT_PORT",
    "CONSOLE_EXT_PORT",
    "WRITE_MODEL_DB_EXT_PORT",
    "READ_MODEL_DB_EXT_PORT",
    "Q_EXT_ADMIN_PORT",
];

impl Contract {
    /// Reads the file and checks that every port in it is free.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        let mut variables = parse(&text).with_context(|| format!("{} is malformed", file.display()))?;
        for (name, value) in &mut variables {
            // The environment overrides the file, as with compose.
            if let Some(own) = environment_variable(name)? {
                *value = own;
            }
        }
        let optional = ["RUST_LOG", "CB_TIMEOUT_S"].map(str::to_owned);
        for name in optional.into_iter().chain(Currency::ALL.map(Rates::variable)) {
            if let Some(own) = environment_variable(&name)? {
                variables.insert(name, own);
            }
        }
        check_credentials(&variables)?;
        let mut contract = Self {
            ports: published(&variables)?,
            variables,
            _leases: Vec::new(),
        };
        contract.use_local_addresses()?;
        Ok(contract)
    }

    /// A required variable.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.variables.get(name).filter(|value| !value.is_empty());
        value
            .map(String::as_str)
            .with_context(|| format!("{name} is missing in the environment contract"))
    }

    /// All variables.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// One of the published ports.
    pub(crate) fn port(&self, name: &str) -> anyhow::Result<u16> {
        self.ports
            .get(name)
            .copied()
            .with_context(|| format!("{name} is not a published port"))
    }

    /// The address of a model's database, on this machine.
    pub(crate) fn database(&self, model: &str) -> anyhow::Result<DatabaseAddress> {
        let prefix = model.to_uppercase();
        let variable = |name: &str| Ok::<_, anyhow::Error>(self.get(&format!("{prefix}_{name}"))?.to_owned());
        Ok(DatabaseAddress {
            host: "127.0.0.1".to_owned(),
            port: self.port(&format!("{prefix}_DB_EXT_PORT"))?,
            user: variable("POSTGRES_USER")?,
            password: variable("POSTGRES_PASSWORD")?,
            owner: Owner {
                user: variable("DB_USER")?,
                password: variable("DB_PWD")?,
            },
            name: variable("POSTGRES_DB")?,
        })
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// The port on which a service listens.
    pub(crate) fn service_port(&self, service: Service) -> anyhow::Result<u16> {
        let name = format!("{}_PORT", service.name().to_uppercase());
        self.get(&name)?
            .parse()
            .with_context(|| format!("{name} is not a port"))
    }

    /// The environment of a service that listens on `port`.
    pub(crate) fn environment(&self, service: Service, port: u16) -> BTreeMap<String, String> {
        let mut environment = service.environment(&self.variables);
        environment.insert("SERVICE_PORT".to_owned(), port.to_string());
        environment
    }

    fn use_local_addresses(&mut self) -> anyhow::Result<()> {
        // There is no Fluentd: the events are in the log files.
        self.set("LOGGING_HOST", "");
        // One port cannot be that of all services.
        self.set("OPS_PORT", "");
        self.set("SERVICE_HOST", "127.0.0.1");
        for model in ["WRITE_MODEL_DB", "READ_MODEL_DB"] {
            let port = self.port(&format!("{model}_EXT_PORT"))?;
            self.set(&format!("{model}_HOST"), "127.0.0.1");
            self.set(&format!("{model}_PORT"), port.to_string());
        }
        self.set("Q_HOST", "127.0.0.1");
        // The private servers listen on the loopback address, without TLS.
        self.set("Q_PROTOCOL", "amqp");
        for model in ["WRITE_MODEL_DB", "READ_MODEL_DB"] {
            self.set(&format!("{model}_SSLMODE"), "prefer");
        }
        for server in ["Q", "WRITE_MODEL_DB", "READ_MODEL_DB"] {
            self.set(&format!("{server}_CA_FILE"), "");
        }
        for service in Service::ALL {
            let prefix = service.name().to_uppercase();
            let port = if let Some(port) = self.ports.get(format!("{prefix}_EXT_PORT").as_str()) {
                *port
            } else {
                let lease = Lease::take()?;
                let port = lease.port();
                self._leases.push(lease);
                port
            };
            self.set(&format!("{prefix}_HOST"), "127.0.0.1");
            self.set(&format!("{prefix}_PORT"), port.to_string());
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "compose lets the environment override its file, and so does this"
)]
fn environment_variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => bail!("{name} in the environment is not UTF-8"),
    }
}

/// Refuses credentials that the private servers cannot be configured or used with.
fn check_credentials(variables: &BTreeMap<String, String>) -> anyhow::Result<()> {
    const CREDENTIALS: [&str; 8] = [
        "WRITE_MODEL_POSTGRES_USER",
        "WRITE_MODEL_POSTGRES_PASSWORD",
        "WRITE_MODEL_POSTGRES_DB",
        "READ_MODEL_POSTGRES_USER",
        "READ_MODEL_POSTGRES_PASSWORD",
        "READ_MODEL_POSTGRES_DB",
        "Q_USER",
        "Q_PWD",
    ];
    for (name, value) in CREDENTIALS
        .iter()
        .filter_map(|name| Some((name, variables.get(*name)?)))
    {
        ensure!(
            !value.contains(char::is_control),
            "{name} contains a control character, for example a line break: choose another value"
        );
    }
    for name in ["WRITE_MODEL_POSTGRES_USER", "READ_MODEL_POSTGRES_USER"] {
        ensure!(
            !variables
                .get(name)
                .is_some_and(|user| user.contains(['"', '\'', '$', '\\'])),
            "{name} contains a quote, `$` or `\\`, with which PostgreSQL cannot create its first role: choose another value"
        );
    }
    // HTTP basic authentication, used for the management interface, ends the user name at a colon.
    ensure!(
        !variables.get("Q_USER").is_some_and(|user| user.contains(':')),
        "Q_USER contains a colon, with which nobody can log in to RabbitMQ's management interface: choose another value"
    );
    Ok(())
}

fn published(variables: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<&'static str, u16>> {
    let mut ports = BTreeMap::new();
    let mut faults = Vec::new();
    for name in PUBLISHED {
        let text = variables.get(name).map_or("", String::as_str);
        match text.parse::<u16>() {
            Ok(port) if port > 0 => {
                if let Some((other, _)) = ports.iter().find(|(_, taken)| **taken == port) {
                    faults.push(format!(
                        "{name} and {other} are both {port}: set one to another port"
                    ));
                } else if !is_free(port) {
                    faults.push(format!(
                        "port {port} is taken by another program: end it, or set {name} to another port"
                    ));
                }
                ports.insert(name, port);
            }
            _ => faults.push(format!(
                "{name} is malformed: {text:?} is not a port, which is a number from 1 to 65535"
            )),
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n         "));
    }
    Ok(ports)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_malformed_one_are_named_with_their_variables() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken = listener.local_addr().unwrap().port().to_string();
        let mut variables: BTreeMap<String, String> = PUBLISHED
            .iter()
            .map(|name| ((*name).to_owned(), "x".to_owned()))
            .collect();
        variables.insert("Q_EXT_ADMIN_PORT".to_owned(), taken.clone());
        let message = published(&variables).unwrap_err().to_string();
        assert!(
            message.contains(&format!("port {taken} is taken")) && message.contains("Q_EXT_ADMIN_PORT"),
            "{message}"
        );
        assert!(
            message.contains("CREATE_BUY_ORDER_EXT_PORT is malformed: \"x\" is not a port"),
            "{message}"
        );
    }
}
