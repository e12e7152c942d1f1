//! Groups of variables that several services read: where to listen, and which servers to use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stringprep::saslprep;

use crate::env::{Env, Secret};
use crate::tls::{Identity, check_authorities};

const ONE_SECOND: Duration = Duration::from_secs(1);

/// Where a service listens, and its certificate: `SERVICE_HOST`, `SERVICE_PORT`, `OPS_PORT`, `SERVICE_TLS_CERT_FILE`, `SERVICE_TLS_KEY_FILE`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address to bind, for example `0.0.0.0`, or `::` for IPv6 and IPv4.
    pub host: String,
    /// The TCP port; 0 lets the system choose.
    pub port: u16,
    /// The port for what operators ask; `None`: the same port.
    pub ops_port: Option<u16>,
    /// The certificate to show; `None`: HTTP without TLS.
    pub(crate) identity: Option<Arc<Identity>>,
}

impl Listen {
    /// Reads the `SERVICE_…` group and `OPS_PORT`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            host: env.host("SERVICE_HOST"),
            port: env.port("SERVICE_PORT"),
            ops_port: ops_port(env),
            identity: identity(env).map(Arc::new),
        }
    }
}

const CERTIFICATE: &str = "SERVICE_TLS_CERT_FILE";
const KEY: &str = "SERVICE_TLS_KEY_FILE";

fn identity(env: &mut Env) -> Option<Identity> {
    let path = |env: &Env, name| env.optional(name).map(PathBuf::from);
    match (path(env, CERTIFICATE), path(env, KEY)) {
        (Some(certificate), Some(key)) => Identity::read(certificate, key)
            .map_err(|error| {
                env.fault(format!(
                    "{CERTIFICATE} and {KEY} name files that cannot be used: {error:#}"
                ));
            })
            .ok(),
        (None, None) => None,
        (Some(_), None) => {
            env.fault(format!(
                "{KEY} is missing: {CERTIFICATE} is set, and TLS needs both"
            ));
            None
        }
        (None, Some(_)) => {
            env.fault(format!(
                "{CERTIFICATE} is missing: {KEY} is set, and TLS needs both"
            ));
            None
        }
    }
}

/// Where the service of this environment listens, for a probe of it: the files of its certificate may be in the middle of a rotation, which
/// must not make it unhealthy.
#[derive(Debug)]
pub(crate) struct OwnService {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ops_port: Option<u16>,
    pub(crate) speaks_tls: bool,
}

impl OwnService {
    pub(crate) fn from_env(env: &mut Env) -> Self {
        Self {
            host: env.host("SERVICE_HOST"),
            port: env.port("SERVICE_PORT"),
            ops_port: ops_port(env),
            speaks_tls: env.optional(CERTIFICATE).is_some(),
        }
    }
}

fn ops_port(env: &mut Env) -> Option<u16> {
    let port = env.optional("OPS_PORT").map(|_| env.port("OPS_PORT"))?;
    if port != 0 && env.optional("SERVICE_PORT") == env.optional("OPS_PORT") {
        env.fault("OPS_PORT is that of SERVICE_PORT: leave it empty for one port".to_owned());
    }
    Some(port)
}

/// The log server: `LOGGING_HOST`, `LOGGING_PORT`, `LOGGING_RETRY_S`. `None`: events go to standard output only.
pub(crate) fn log_server(env: &mut Env) -> Option<fluent_logger::Config> {
    const FORWARD_PORT: u16 = 24224;
    let host = env.optional_host("LOGGING_HOST");
    let port = env.port_or("LOGGING_PORT", FORWARD_PORT);
    let retry = env.seconds_or("LOGGING_RETRY_S", ONE_SECOND);
    let mut config = fluent_logger::Config::new(host?, port);
    config.retry = retry;
    Some(config)
}

/// Whether a connection to a database is encrypted, and which servers it trusts, with the names that libpq has for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server supports it, else plain text. No certificate is verified.
    Prefer,
    /// Always encrypted. No certificate is verified.
    Require,
    /// Always encrypted. The certificate must be signed by a trusted authority and made for the host name.
    VerifyFull,
}

impl SslMode {
    fn from_env(env: &mut Env, name: &str) -> Self {
        let text = env.one_of(name, &["disable", "prefer", "require", "verify-full"]);
        if text != Some("verify-full") {
            env.refuse_in_production(&format!(
                "{name} is not verify-full, so somebody may sit between us and the database"
            ));
        }
        match text {
            Some("disable") => Self::Disable,
            Some("require") => Self::Require,
            Some("verify-full") => Self::VerifyFull,
            Some(_) | None => Self::Prefer,
        }
    }
}

/// A role of a PostgreSQL server, and its password: `{PREFIX}_USER`, `{PREFIX}_PWD` (or `{PREFIX}_PWD_FILE`).
#[derive(Debug, Clone)]
pub struct Login {
    /// The name of the role.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl Login {
    /// Reads the two variables whose names begin with `prefix`. Refuses logins that sqlx cannot send by SCRAM (RFC 5802): it would retry for
    /// ever. PostgreSQL and `psql` are less strict.
    fn from_env(env: &mut Env, prefix: &str) -> Self {
        let login = Self {
            user: env.string(&format!("{prefix}_USER")),
            password: env.secret(&format!("{prefix}_PWD")),
        };
        if login.user.contains(',') {
            env.fault(format!(
                "{prefix}_USER holds a comma, which separates the parts of a login: choose another name"
            ));
        }
        for (part, text) in [("USER", &login.user), ("PWD", &login.password.expose())] {
            if saslprep(text).is_err() {
                env.fault(format!(
                    "{prefix}_{part} holds a character that a login may not hold (RFC 4013), for example a control character or an emoji: \
                     choose another"
                ));
            }
        }
        login
    }

    /// As a required login, but nothing when neither variable is set.
    pub fn optional(env: &mut Env, prefix: &str) -> Option<Self> {
        let is_set = |name: &str| env.optional(&format!("{prefix}_{name}")).is_some();
        (is_set("USER") || is_set("PWD") || is_set("PWD_FILE")).then(|| Self::from_env(env, prefix))
    }
}

/// A PostgreSQL database: `{PREFIX}_HOST`, `_PORT`, `_NAME`, `_USER`, `_PWD` (or `_PWD_FILE`), `_RETRY_WAIT_S`, `_SSLMODE`, `_CA_FILE`.
#[derive(Debug, Clone)]
pub struct Database {
    /// The host name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The name of the database.
    pub name: String,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The first pause between two attempts to connect.
    pub retry_wait: Duration,
    /// Whether connections are encrypted.
    pub ssl_mode: SslMode,
    /// A PEM file with authorities to trust besides the public ones. It is read for each connection.
    pub ca_file: Option<PathBuf>,
}

impl Database {
    /// Reads the group of variables whose names begin with `prefix`, for example `WRITE_MODEL_DB`.
    pub fn from_env(env: &mut Env, prefix: &str) -> Self {
        let Login { user, password } = Login::from_env(env, prefix);
        Self {
            host: env.host(&format!("{prefix}_HOST")),
            port: env.port(&format!("{prefix}_PORT")),
            name: env.string(&format!("{prefix}_NAME")),
            user,
            password,
            retry_wait: env.seconds_or(&format!("{prefix}_RETRY_WAIT_S"), ONE_SECOND),
            ssl_mode: SslMode::from_env(env, &format!("{prefix}_SSLMODE")),
            ca_file: ca_file(env, prefix, "SSLMODE", "verify-full"),
        }
    }
}

/// The PEM file `{prefix}_CA_FILE`, which has an effect only where `{prefix}_{mode}` is `verifying`.
fn ca_file(env: &mut Env, prefix: &str, mode: &str, verifying: &str) -> Option<PathBuf> {
    let name = format!("{prefix}_CA_FILE");
    let path = PathBuf::from(env.optional(&name)?);
    if env.optional(&format!("{prefix}_{mode}")).as_deref() != Some(verifying) {
        // Otherwise an operator would rely on a check that does not happen.
        env.fault(format!(
            "{name} is set, but certificates are verified with {prefix}_{mode}={verifying} only"
        ));
    }
    if let Err(error) = check_authorities(&path) {
        env.fault(format!("{name} names {path:?}, which {error:#}"));
    }
    Some(path)
}

/// The RabbitMQ broker: `Q_PROTOCOL`, `Q_CA_FILE`, `Q_HOST`, `Q_PORT`, `Q_EXCHANGE`, `Q_USER`, `Q_PWD` (or `Q_PWD_FILE`), `Q_VHOST`, `Q_CLIENT_CONNECT_RETRY_S`.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Whether connections are encrypted: `amqps`. The certificate of the broker must be valid for `host`.
    pub encrypted: bool,
    /// A PEM file with authorities to trust besides the public ones. It is read for each connection.
    pub ca_file: Option<PathBuf>,
    /// The host name.
    pub host: String,
    /// The AMQP port.
    pub port: u16,
    /// The exchange that events are published to.
    pub exchange: String,
    /// The user to log in as.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The virtual host.
    pub vhost: String,
    /// The first pause between two attempts to connect.
    pub connect_retry: Duration,
}

impl Queue {
    /// Reads the `Q_…` group.
    pub fn from_env(env: &mut Env) -> Self {
        let encrypted = env.one_of("Q_PROTOCOL", &["amqp", "amqps"]) == Some("amqps");
        if !encrypted {
            env.refuse_in_production("Q_PROTOCOL is not amqps, so passwords and orders travel as plain text");
        }
        Self {
            encrypted,
            ca_file: ca_file(env, "Q", "PROTOCOL", "amqps"),
            host: env.host("Q_HOST"),
            port: env.port("Q_PORT"),
            exchange: env.string_or("Q_EXCHANGE", "pydist"),
            user: env.string("Q_USER"),
            password: env.secret("Q_PWD"),
            vhost: env.string_or("Q_VHOST", "/"),
            connect_retry: env.seconds_or("Q_CLIENT_CONNECT_RETRY_S", ONE_SECOND),
        }
    }

    /// As [`Queue::from_env`], but nothing when `Q_HOST` is not set.
    pub fn optional(env: &mut Env) -> Option<Self> {
        env.optional("Q_HOST").map(|_| Self::from_env(env))
    }
}

/// Another service of the cluster: `{PREFIX}_PROTOCOL`, `_HOST`, `_PORT`; and `EXTRA_CA_FILE`, which all of them share.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `http` or `https`.
    pub protocol: &'static str,
    /// The host name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// A PEM file with authorities to trust besides the public ones, for `https`. It is read for each connection.
    pub extra_ca: Option<PathBuf>,
}

impl Peer {
    /// Reads the group of variables whose names begin with `prefix`, for example `BTC_PRICE`.
    pub fn from_env(env: &mut Env, prefix: &str) -> Self {
        let protocol = env.one_of(&format!("{prefix}_PROTOCOL"), &["http", "https"]);
        if protocol != Some("https") {
            env.refuse_in_production(&format!(
                "{prefix}_PROTOCOL is not https, so somebody may answer in its place"
            ));
        }
        Self {
            protocol: protocol.unwrap_or("http"),
            host: env.host(&format!("{prefix}_HOST")),
            port: env.port(&format!("{prefix}_PORT")),
            extra_ca: env.optional("EXTRA_CA_FILE").map(PathBuf::from),
        }
    }

    /// The URL of a path of this service; the path begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let Self {
            protocol, host, port, ..
        } = self;
        if host.contains(':') {
            format!("{protocol}://[{host}]:{port}{path}") // IPv6
        } else {
            format!("{protocol}://{host}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(variables: &[(&str, &str)]) -> Result<Database, String> {
        let required = [
            ("HOST", "a"),
            ("PORT", "1"),
            ("NAME", "b"),
            ("USER", "c"),
            ("PWD", "d"),
        ];
        let all = required.iter().chain(variables);
        let mut env = Env::from_pairs(all.map(|(name, value)| (format!("X_DB_{name}"), (*value).to_owned())));
        let database = Database::from_env(&mut env, "X_DB");
        env.finish(database).map_err(|faults| faults.to_string())
    }

    #[test]
    fn the_ssl_mode_of_a_database_is_one_of_libpqs_and_prefer_where_none_is_set() {
        let mode = |text| database(&[("SSLMODE", text)]).map(|database| database.ssl_mode);
        assert_eq!(mode(""), Ok(SslMode::Prefer));
        assert_eq!(mode("prefer"), Ok(SslMode::Prefer));
        assert_eq!(mode("disable"), Ok(SslMode::Disable));
        assert_eq!(mode("require"), Ok(SslMode::Require));
        assert_eq!(mode("verify-full"), Ok(SslMode::VerifyFull));
        for text in ["verify-ca", "REQUIRE", "on"] {
            assert!(mode(text).is_err_and(|faults| faults.contains("X_DB_SSLMODE is malformed")));
        }
    }

    #[test]
    fn a_ca_file_of_a_database_that_would_verify_nothing_is_refused_by_its_name() {
        for variables in [
            &[("CA_FILE", "/nowhere")][..],
            &[("CA_FILE", "/nowhere"), ("SSLMODE", "require")],
            &[("CA_FILE", "/nowhere"), ("SSLMODE", "verify-full")],
            &[("CA_FILE", "/dev/null"), ("SSLMODE", "verify-full")],
        ] {
            assert!(database(variables).is_err_and(|faults| faults.contains("X_DB_CA_FILE ")));
        }
    }

    #[test]
    fn a_broker_is_encrypted_with_amqps_only_and_a_ca_file_that_would_verify_nothing_is_refused() {
        let queue = |variables: &[(&str, &str)]| {
            let required = [("Q_HOST", "a"), ("Q_PORT", "1"), ("Q_USER", "b"), ("Q_PWD", "c")];
            let mut env = Env::from_pairs(required.iter().chain(variables).copied());
            let queue = Queue::from_env(&mut env);
            env.finish(queue.encrypted).map_err(|faults| faults.to_string())
        };
        assert_eq!(queue(&[]), Ok(false));
        assert_eq!(queue(&[("Q_PROTOCOL", "")]), Ok(false));
        assert_eq!(queue(&[("Q_PROTOCOL", "amqp")]), Ok(false));
        assert_eq!(queue(&[("Q_PROTOCOL", "amqps")]), Ok(true));
        for text in ["AMQPS", "tls", "amqp+ssl"] {
            let refused = queue(&[("Q_PROTOCOL", text)]);
            assert!(refused.is_err_and(|faults| faults.contains("Q_PROTOCOL is malformed")));
        }
        for variables in [
            &[("Q_CA_FILE", "/nowhere")][..],
            &[("Q_CA_FILE", "/nowhere"), ("Q_PROTOCOL", "amqp")],
            &[("Q_CA_FILE", "/nowhere"), ("Q_PROTOCOL", "amqps")],
            &[("Q_CA_FILE", "/dev/null"), ("Q_PROTOCOL", "amqps")],
        ] {
            assert!(queue(variables).is_err_and(|faults| faults.contains("Q_CA_FILE ")));
        }
    }

    #[test]
    fn half_a_certificate_of_a_service_or_a_broken_one_is_refused_by_its_name() {
        for (variables, named) in [
            (
                &[(CERTIFICATE, "/dev/null")][..],
                "SERVICE_TLS_KEY_FILE is missing",
            ),
            (&[(KEY, "/dev/null")], "SERVICE_TLS_CERT_FILE is missing"),
            (
                &[(CERTIFICATE, "/nowhere/c.pem"), (KEY, "/dev/null")],
                "/nowhere/c.pem cannot be read",
            ),
            (&[(CERTIFICATE, "/dev/null"), (KEY, "/dev/null")], "holds none"),
        ] {
            let listen = [("SERVICE_HOST", "a"), ("SERVICE_PORT", "1")];
            let mut env = Env::from_pairs(listen.iter().chain(variables).copied());
            Listen::from_env(&mut env);
            let faults = env.finish(()).map_err(|faults| faults.to_string());
            assert!(
                faults.as_ref().is_err_and(|faults| faults.contains(named)),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn a_peer_speaks_http_or_https_only() {
        let mut env = Env::from_pairs([("X_PROTOCOL", "ftp"), ("X_HOST", "a"), ("X_PORT", "80")]);
        Peer::from_env(&mut env, "X");
        assert!(env.finish(()).is_err());
    }

    #[test]
    fn the_url_of_a_peer_has_an_ipv6_address_in_brackets() {
        for host in ["::1", "[::1]"] {
            let mut env = Env::from_pairs([("X_HOST", host), ("X_PORT", "80")]);
            let peer = Peer::from_env(&mut env, "X");
            assert_eq!(peer.url("/healthcheck"), "http://[::1]:80/healthcheck");
        }
    }

    #[test]
    fn an_empty_logging_host_means_standard_output_only() {
        let mut env = Env::from_pairs([("LOGGING_HOST", "")]);
        assert!(log_server(&mut env).is_none());
        assert!(env.finish(()).is_ok());
    }
}
