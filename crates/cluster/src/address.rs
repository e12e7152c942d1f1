//! Addresses of databases and brokers.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// How to connect to a database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The administrator of the instance, a superuser.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The owner of the database: the role of `migration`.
    pub owner: Owner,
    /// Name of the database.
    pub name: String,
}

/// The role that owns a database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl DatabaseAddress {
    /// Connection options for sqlx, as the administrator.
    #[must_use]
    pub fn options(&self) -> sqlx::postgres::PgConnectOptions {
        sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.name)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// The environment variables that point a service to it, and the owner's: `{model}_DB_HOST` and the others.
    pub(crate) fn variables(&self, model: &str) -> [(String, String); 5] {
        [
            ("HOST", self.host.clone()),
            ("PORT", self.port.to_string()),
            ("NAME", self.name.clone()),
            ("USER", self.owner.user.clone()),
            ("PWD", self.owner.password.clone()),
        ]
        .map(|(name, value)| (format!("{model}_DB_{name}"), value))
    }

    /// `postgres://user:password@host:port/name`
    #[must_use]
    pub fn uri(&self) -> String {
        uri(
            "postgres",
            (&self.user, &self.password),
            (&self.host, self.port),
            &self.name,
        )
    }

    /// Another database of the same instance.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }
}

/// How to connect to a broker, and which of its virtual hosts to use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// AMQP port.
    pub port: u16,
    /// User, an administrator.
    pub user: String,
    /// The password of the user.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
    /// `http://host:port` of the management interface.
    pub management_url: String,
}

impl BrokerAddress {
    /// `amqp://user:password@host:port/vhost`
    #[must_use]
    pub fn uri(&self) -> String {
        uri(
            "amqp",
            (&self.user, &self.password),
            (&self.host, self.port),
            &self.vhost,
        )
    }

    /// The environment variables that point a service to it, with the login of the administrator.
    #[must_use]
    pub fn variables(&self) -> [(String, String); 5] {
        [
            ("HOST", self.host.clone()),
            ("PORT", self.port.to_string()),
            ("USER", self.user.clone()),
            ("PWD", self.password.clone()),
            ("VHOST", self.vhost.clone()),
        ]
        .map(|(name, value)| (format!("Q_{name}"), value))
    }

    /// The URL of a resource of the management API. `{vhost}` and `{user}` in `resource` are replaced, as in `permissions/{vhost}/{user}`.
    #[must_use]
    pub fn api(&self, resource: &str) -> String {
        format!(
            "{}/api/{}",
            self.management_url,
            resource
                .replace("{vhost}", &url_part(&self.vhost))
                .replace("{user}", &url_part(&self.user))
        )
    }
}

fn uri(scheme: &str, (user, password): (&str, &str), (host, port): (&str, u16), path: &str) -> String {
    let [user, password, path] = [user, password, path].map(url_part);
    format!("{scheme}://{user}:{password}@{host}:{port}/{path}")
}

/// Percent-encodes a text so that it can be one part of a URL.
fn url_part(text: &str) -> String {
    // The unreserved characters of RFC 3986 need no escape.
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The addresses of a set of servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// The instance of the write model.
    pub write_model: DatabaseAddress,
    /// The instance of the read model.
    pub read_model: DatabaseAddress,
    /// The broker.
    pub broker: BrokerAddress,
}
