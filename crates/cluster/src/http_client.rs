//! The HTTP client of the harness.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// A client for addresses on this machine: no proxy, a limit of 30 s for each request.
///
/// # Errors
/// When the client cannot be built.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    http_client_with(HeaderMap::new())
}

/// The header with this token.
///
/// # Errors
/// It holds a character that a header cannot hold.
pub fn bearer(token: &str) -> anyhow::Result<HeaderMap> {
    let value = HeaderValue::try_from(format!("Bearer {token}")).context("not a token")?;
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// The same, which sends these headers with each request.
///
/// # Errors
/// As there.
pub fn http_client_with(headers: HeaderMap) -> anyhow::Result<reqwest::Client> {
    client(headers, RootCertStore::empty())
}

/// The same, which trusts the certificates of the authorities in this PEM file.
///
/// # Errors
/// As there; and when the file holds no authority.
pub fn https_client_with(headers: HeaderMap, authorities: &Path) -> anyhow::Result<reqwest::Client> {
    client(headers, trusted(authorities)?)
}

/// The authorities in a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn trusted(authorities: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities)? {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "no authority is in {}", authorities.display());
    Ok(roots)
}

fn client(headers: HeaderMap, roots: RootCertStore) -> anyhow::Result<reqwest::Client> {
    // reqwest panics without a provider. An error here means that one is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .context("could not build an HTTP client")
}
