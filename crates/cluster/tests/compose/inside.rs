//! Connections from inside a container: of a process in its network, with its addresses, routes and filters.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::project::Container;

/// What is not answered within this cannot be reached: it is on the same machine.
const LIMIT: Duration = Duration::from_secs(2);

fn network_of(container: &Container) -> anyhow::Result<String> {
    Ok(format!("/proc/{}/ns/net", container.process()?))
}

/// A TCP connection from inside this container.
pub(crate) fn connect(container: &Container, address: SocketAddr) -> anyhow::Result<TcpStream> {
    let network = File::open(network_of(container)?)?;
    // A thread moves alone, and ends there.
    let connecting = thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect_timeout(&address, LIMIT)
    });
    let connected = connecting.join().map_err(|_| anyhow!("the thread panicked"))?;
    connected.with_context(|| format!("{} to {address}", container.name()))
}

/// Runs a program of this machine in the network of this container.
pub(crate) fn run(container: &Container, program: &mut Command) -> anyhow::Result<Output> {
    let mut inside = Command::new("nsenter");
    inside
        .arg(format!("--net={}", network_of(container)?))
        .arg(program.get_program())
        .args(program.get_args())
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    inside.stdin(Stdio::null()).output().context("nsenter")
}

/// A TLS connection from inside the container to a server, whose certificate must be for this name.
async fn tls(
    container: &Container,
    address: SocketAddr,
    name: &str,
    authorities: RootCertStore,
) -> anyhow::Result<TlsStream<tokio::net::TcpStream>> {
    let stream = connect(container, address)?;
    stream.set_nonblocking(true)?;
    let config = ClientConfig::builder()
        .with_root_certificates(authorities)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(connector
        .connect(name, tokio::net::TcpStream::from_std(stream)?)
        .await?)
}

/// The certificate that the server shows on such a connection.
pub(crate) async fn certificate(
    container: &Container,
    address: SocketAddr,
    name: &str,
    authorities: RootCertStore,
) -> anyhow::Result<CertificateDer<'static>> {
    let stream = tls(container, address, name, authorities).await?;
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("no certificate")?.clone())
}

/// A port of this machine. The first connection to it goes on over such a connection.
pub(crate) async fn tunnel(
    container: &Container,
    address: SocketAddr,
    name: &str,
    authorities: RootCertStore,
) -> anyhow::Result<SocketAddr> {
    let mut outer = tls(container, address, name, authorities).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut inner, _) = listener.accept().await?;
        tokio::io::copy_bidirectional(&mut inner, &mut outer).await
    });
    Ok(port)
}
