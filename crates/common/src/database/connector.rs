//! How one connection is made: which address, in plain text or not, with which session.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::session::{self, SESSION_SETTINGS, UPKEEP};
use crate::endpoints::{Database, SslMode};

/// A server that accepts and then says nothing must not hold up the start for ever.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where there is another address to try: a silent one must leave time for it.
const ADDRESS_LIMIT: Duration = Duration::from_millis(1200);

/// Connects to one database, each time with what the environment and its files say then.
#[derive(Debug)]
pub(super) struct Connector {
    endpoint: Database,
    /// Of PostgreSQL, besides those of every session.
    settings: Vec<(String, String)>,
    /// Is tried first, so that a silent one is waited for once.
    answered_last: Mutex<Option<SocketAddr>>,
    told_of_plain_text: AtomicBool,
}

impl Connector {
    pub(super) fn new(endpoint: &Database, settings: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            endpoint: endpoint.clone(),
            settings: settings.iter().map(owned).collect(),
            answered_last: Mutex::default(),
            told_of_plain_text: AtomicBool::default(),
        }
    }

    pub(super) fn endpoint(&self) -> &Database {
        &self.endpoint
    }

    /// A session that is as it was asked for, on the first address that answers in time.
    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        let Database { host, port, .. } = &self.endpoint;
        // sqlx verifies the name that it connects to: it cannot be given an address instead. And what begins with a slash is a socket's folder.
        if self.endpoint.ssl_mode == SslMode::VerifyFull || host.starts_with('/') {
            return self.connect_within(CONNECT_LIMIT, host).await;
        }
        let found = timeout(CONNECT_LIMIT, lookup_host((host.as_str(), *port))).await;
        let addresses: Vec<SocketAddr> = found.map_err(|_| silent())??.collect();
        if addresses.len() == 1 {
            // By its name, which TLS tells the server.
            return self.connect_within(CONNECT_LIMIT, host).await;
        }
        self.connect_to_one_of(addresses).await
    }

    /// Connects, and looks whether more than a first session will work.
    pub(super) async fn ask(&self) -> sqlx::Result<()> {
        let (mut session, mut other) = (self.connect().await?, self.connect().await?);
        let checked = timeout(CONNECT_LIMIT, session::check_prepared(&mut session, &mut other));
        checked.await.map_err(|_| silent())?
    }

    async fn connect_to_one_of(&self, mut addresses: Vec<SocketAddr>) -> sqlx::Result<PgConnection> {
        let answered_last = *self.answered_last.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.sort_by_key(|address| Some(*address) != answered_last);
        let mut failure = sqlx::Error::Io(ErrorKind::AddrNotAvailable.into());
        let mut left = addresses.len();
        for address in addresses {
            left = left.saturating_sub(1);
            let limit = if left == 0 { CONNECT_LIMIT } else { ADDRESS_LIMIT };
            match self.connect_within(limit, &address.ip().to_string()).await {
                Ok(connection) => {
                    *self.answered_last.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                    return Ok(connection);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_within(&self, limit: Duration, host: &str) -> sqlx::Result<PgConnection> {
        let connected = timeout(limit, async {
            let mut connection = self.negotiate(host).await.map_err(session::explain)?;
            session::check(&mut connection).await?;
            Ok(connection)
        });
        connected.await.map_err(|_| silent())?
    }

    /// As libpq does, `prefer` goes on in plain text where the two sides find no encryption that both can do. sqlx does so only where the
    /// server offers none.
    async fn negotiate(&self, host: &str) -> sqlx::Result<PgConnection> {
        let options = self.options(host);
        let failure = match options.connect().await {
            Err(error) if self.endpoint.ssl_mode == SslMode::Prefer && is_of_encryption(&error) => error,
            outcome => return outcome,
        };
        match options.ssl_mode(PgSslMode::Disable).connect().await {
            Ok(connection) => {
                if !self.told_of_plain_text.swap(true, Ordering::Relaxed) {
                    let Database { host, port, name, .. } = &self.endpoint;
                    tracing::warn!(event = "database_not_encrypted", database = name, host, port, error = %failure);
                }
                Ok(connection)
            }
            // It wants encryption: what stands against that is what an operator can mend.
            Err(error) if refuses_the_way(&error) => Err(failure),
            Err(error) => Err(error),
        }
    }

    /// Made anew for each connection: a password file may have been rotated.
    fn options(&self, host: &str) -> PgConnectOptions {
        let Database {
            port,
            name,
            user,
            password,
            ssl_mode,
            ca_file,
            ..
        } = &self.endpoint;
        let settings = self.settings.iter().map(|(name, value)| (&**name, &**value));
        let options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(*port)
            .database(name)
            .username(user)
            .password(&password.expose())
            .application_name(&program())
            // sqlx asks for one that floats need: we have none, and PgBouncer refuses what it does not know.
            .extra_float_digits(None)
            .options(SESSION_SETTINGS)
            .options(UPKEEP)
            .options(settings)
            .ssl_mode(match ssl_mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        match ca_file {
            Some(path) => options.ssl_root_cert(path),
            // Instead of the one that PGSSLROOTCERT names.
            None => options.ssl_root_cert_from_pem(Vec::new()),
        }
    }
}

/// The name under which PostgreSQL lists the session.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// How a limit of ours is told.
pub(super) fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, "no answer in time"))
}

/// Whether the same server may answer in plain text. rustls' errors come as I/O errors; so does that of a server that hangs up.
fn is_of_encryption(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::InvalidData
                | ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
        ),
        error => refuses_the_way(error),
    }
}

/// `pg_hba.conf` has no entry for this way to the server.
fn refuses_the_way(error: &sqlx::Error) -> bool {
    let refusal = error.as_database_error();
    refusal.is_some_and(|refusal| refusal.code().as_deref() == Some("28000"))
}
