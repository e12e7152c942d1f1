//! TLS: which servers are trusted, and how a service proves who it is.
//!
//! TLS 1.2 and 1.3, by ring. Nothing is resumed: each connection sees the certificate that counts then.

mod authorities;
mod identity;
mod own_service;
mod reloaded;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use authorities::Authorities;
pub(crate) use identity::Identity;
use own_service::AnyCertificate;

/// The one protocol of our clients and servers of HTTP, in ALPN.
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// A client that trusts the public authorities, and those of the PEM file `extra_ca`. The certificate must be valid for the server's name.
/// The file is read again at each handshake.
///
/// # Errors
/// The file cannot be used; the error names it.
pub(crate) fn client_config(extra_ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let verifier: Arc<dyn ServerCertVerifier> = match extra_ca {
        None => authorities::verifier(&[])?,
        Some(path) => Arc::new(Authorities::read(path).with_context(|| path.display().to_string())?),
    };
    config_with(verifier)
}

/// A client for a service that asks itself, which accepts any certificate. It must send nothing secret, and believe no more than health.
pub(crate) fn own_service_config() -> anyhow::Result<ClientConfig> {
    config_with(Arc::new(AnyCertificate(provider())))
}

fn config_with(verifier: Arc<dyn ServerCertVerifier>) -> anyhow::Result<ClientConfig> {
    // The provider is passed explicitly, so that a client can be built before the process has installed a default.
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Checks that a PEM file holds authorities.
///
/// # Errors
/// As [`add_authorities`]; or the file cannot be read.
pub(crate) fn check_authorities(path: &Path) -> anyhow::Result<()> {
    let pem = std::fs::read(path).context("cannot be read")?;
    add_authorities(&mut RootCertStore::empty(), &pem)
}

/// Adds the certificates of a PEM text to `roots`.
///
/// # Errors
/// It is not PEM, or holds no certificate that can be trusted.
fn add_authorities(roots: &mut RootCertStore, pem: &[u8]) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots
            .add(certificate.context("is not PEM")?)
            .context("holds a certificate that cannot be trusted")?;
    }
    ensure!(roots.len() > before, "holds no certificate");
    Ok(())
}
