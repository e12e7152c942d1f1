//! How one connection is made: to which address, encrypted or not, with which session settings.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::session::{self, KEEPALIVE_SETTINGS, SESSION_SETTINGS};
use crate::endpoints::{Database, SslMode};

/// For a server that accepts the connection and then does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For an address that is not the last one: leaves time to try the others.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(1200);

/// Connects to one database. Reads the password file anew for each connection.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) endpoint: Database,
    /// PostgreSQL settings besides those of every session.
    settings: &'static [(&'static str, &'static str)],
    /// The address that answered last is tried first, so that an address that does not answer costs its timeout once.
    last_address: Mutex<Option<SocketAddr>>,
    plain_text_reported: AtomicBool,
}

impl Connector {
    pub(super) fn new(endpoint: &Database, settings: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            endpoint: endpoint.clone(),
            settings,
            last_address: Mutex::default(),
            plain_text_reported: AtomicBool::default(),
        }
    }

    /// Connects to the first address that answers in time, and verifies the session's settings. Boxed, so that sqlx's connection is compiled
    /// in this crate alone.
    pub(super) fn connect(&self) -> BoxFuture<'_, sqlx::Result<PgConnection>> {
        async move {
            let Database { host, port, .. } = &self.endpoint;
            // For verify-full sqlx needs the host name that the certificate names. And a host that begins with a slash is the folder of a socket.
            if self.endpoint.ssl_mode == SslMode::VerifyFull || host.starts_with('/') {
                return self.connect_within(CONNECT_TIMEOUT, host).await;
            }
            let look_up = async { Ok(lookup_host((host.as_str(), *port)).await?.collect()) };
            let addresses: Vec<SocketAddr> = in_time(CONNECT_TIMEOUT, look_up).await?;
            if addresses.len() == 1 {
                // By its name, which TLS sends to the server.
                return self.connect_within(CONNECT_TIMEOUT, host).await;
            }
            self.connect_to_any(addresses).await
        }
        .boxed()
    }

    /// Connects, and verifies that prepared statements survive a pooler.
    pub(super) async fn check(&self) -> sqlx::Result<()> {
        let (mut session, mut other) = (self.connect().await?, self.connect().await?);
        in_time(CONNECT_TIMEOUT, session::check_prepared(&mut session, &mut other)).await
    }

    async fn connect_to_any(&self, mut addresses: Vec<SocketAddr>) -> sqlx::Result<PgConnection> {
        let last_address = *self.last_address.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.sort_by_key(|address| Some(*address) != last_address);
        let mut failure = sqlx::Error::Io(ErrorKind::AddrNotAvailable.into());
        let last = addresses.last().copied();
        for address in addresses {
            let limit = if Some(address) == last {
                CONNECT_TIMEOUT
            } else {
                ADDRESS_TIMEOUT
            };
            match self.connect_within(limit, &address.ip().to_string()).await {
                Ok(connection) => {
                    *self.last_address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                    return Ok(connection);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_within(&self, limit: Duration, host: &str) -> sqlx::Result<PgConnection> {
        in_time(limit, async {
            let mut connection = self.negotiate(host).await.map_err(session::explain)?;
            session::check_settings(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    /// As in libpq, `prefer` falls back to plain text when encryption fails. sqlx does so only when the server offers none.
    async fn negotiate(&self, host: &str) -> sqlx::Result<PgConnection> {
        let options = self.options(host);
        let failure = match options.connect().await {
            Err(error) if self.endpoint.ssl_mode == SslMode::Prefer && may_be_encryption(&error) => error,
            outcome => return outcome,
        };
        match options.ssl_mode(PgSslMode::Disable).connect().await {
            Ok(connection) => {
                if !self.plain_text_reported.swap(true, Ordering::Relaxed) {
                    let Database { host, port, name, .. } = &self.endpoint;
                    tracing::warn!(event = "database_not_encrypted", database = name, host, port, error = %failure);
                }
                Ok(connection)
            }
            // The server refuses plain text: the operator has to know why encryption failed.
            Err(error) if is_refused_by_hba(&error) => Err(failure),
            Err(error) => Err(error),
        }
    }

    fn options(&self, host: &str) -> PgConnectOptions {
        let database = &self.endpoint;
        let options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(database.port)
            .database(&database.name)
            .username(&database.user)
            .password(&database.password.expose())
            .application_name(&program_name())
            // sqlx sets it by default. We use no floats, and PgBouncer refuses settings that it does not know.
            .extra_float_digits(None)
            .options(SESSION_SETTINGS)
            .options(KEEPALIVE_SETTINGS)
            .options(self.settings.iter().copied())
            .ssl_mode(match database.ssl_mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        match &database.ca_file {
            Some(path) => options.ssl_root_cert(path),
            // Else sqlx would read PGSSLROOTCERT.
            None => options.ssl_root_cert_from_pem(Vec::new()),
        }
    }
}

/// The name of the session in pg_stat_activity.
fn program_name() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Waits for an answer of the server, up to `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let timed_out = io::Error::new(ErrorKind::TimedOut, "no answer in time");
        Err(timed_out.into())
    })
}

/// Whether the same server may accept plain text. rustls' errors are I/O errors, and so is that of a server that hangs up.
fn may_be_encryption(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::InvalidData
                | ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
        ),
        error => is_refused_by_hba(error),
    }
}

/// `pg_hba.conf` has no entry for this kind of connection.
fn is_refused_by_hba(error: &sqlx::Error) -> bool {
    let refusal = error.as_database_error();
    refusal.is_some_and(|refusal| refusal.code().as_deref() == Some("28000"))
}
