//! TLS to the broker. lapin can do it itself only with a second set of TLS crates, so it is given a stream that is encrypted already.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_compat::Compat;
use async_rs::Runtime;
use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_util::{AsyncRead, AsyncWrite, Stream};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ANSWER_TIMEOUT, Error};
use crate::endpoints::Queue;
use crate::tls;

/// A connection that is encrypted.
pub(super) type Encrypted = TlsStream<TcpStream>;

/// Agrees on TLS with the broker, whose certificate must be valid for its host name. The file of authorities is read each time.
pub(super) async fn encrypt(stream: TcpStream, queue: &Queue) -> Result<Encrypted, Error> {
    let config = tls::client_config(queue.ca_file.as_deref())
        .map_err(|error| Error::NotEncrypted(io::Error::other(format!("Q_CA_FILE {error:#}"))))?;
    let name = ServerName::try_from(queue.host.clone())
        .map_err(|error| Error::NotEncrypted(io::Error::other(error)))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let limit = ANSWER_TIMEOUT;
    let agreed = timeout(limit, handshake).await.map_err(|_| Error::TimedOut {
        doing: "agree on TLS",
        limit,
    })?;
    agreed.map_err(Error::NotEncrypted)
}

/// lapin's runtime for encrypted streams.
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, EncryptedStreams>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), EncryptedStreams(tokio)))
}

/// That of tokio, but for the type of stream.
#[derive(Debug, Clone)]
pub(super) struct EncryptedStreams(Tokio);

impl Reactor for EncryptedStreams {
    type TcpStream = Compat<Encrypted>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Never called: lapin has no other sockets.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// Never called: lapin gets its stream from us, and does not connect again by itself.
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
