//! Prices over TLS from a server whose certificate is signed by a private authority.

use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::StatusCode;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::service::BtcPrice;

struct PrivateProvider {
    port: String,
    ca_file: NamedTempFile,
}

impl PrivateProvider {
    /// Answers every request with a price in USD, with a certificate for `name`.
    async fn start(name: &str) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut ca_file = NamedTempFile::new()?;
        ca_file.write_all(authority.pem().as_bytes())?;

        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(acceptor.clone(), stream));
            }
        });
        Ok(Self { port, ca_file })
    }

    async fn buy(&self, trusted: bool) -> anyhow::Result<StatusCode> {
        let path = self.ca_file.path().to_string_lossy();
        let mut variables = vec![
            ("CB_PROTOCOL", "https"),
            ("CB_HOST", "localhost"),
            ("CB_PORT", &self.port),
        ];
        variables.extend(trusted.then_some(("EXTRA_CA_FILE", &*path)));
        let service = BtcPrice::start(&variables).await?;
        Ok(service.buy("USD").await?.status)
    }
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> std::io::Result<()> {
    const BODY: &str = r#"{"data":{"base":"BTC","currency":"USD","amount":"48478.88"}}"#;
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        BODY.len()
    );
    stream.write_all((head + BODY).as_bytes()).await?;
    stream.shutdown().await
}

#[tokio::test]
async fn a_provider_with_a_private_authority_is_trusted_when_its_ca_file_is_given() -> anyhow::Result<()> {
    let provider = PrivateProvider::start("localhost").await?;
    assert_eq!(provider.buy(true).await?, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_cannot_prove_who_it_is_gives_no_price() -> anyhow::Result<()> {
    let unknown = PrivateProvider::start("localhost").await?;
    assert_eq!(unknown.buy(false).await?, StatusCode::SERVICE_UNAVAILABLE);
    let another = PrivateProvider::start("elsewhere.test").await?;
    assert_eq!(another.buy(true).await?, StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}
