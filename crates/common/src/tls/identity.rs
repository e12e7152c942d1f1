//! The certificate of a service.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::reloaded::Reloaded;
use super::{HTTP_1_1, provider};

/// The certificate chain and the private key of a service, in two PEM files. Each new connection gets what is in the files then.
#[derive(Debug)]
pub(crate) struct Identity(Reloaded<CertifiedKey>);

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be used, or they do not belong together.
    pub(crate) fn read(certificate: PathBuf, key: PathBuf) -> anyhow::Result<Self> {
        Reloaded::read(vec![certificate, key], certified).map(Self)
    }

    /// For a server of HTTP/1.1.
    ///
    /// # Errors
    /// None that is known: ring supports the versions.
    pub(crate) fn server_config(self: Arc<Self>) -> anyhow::Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

fn certified(contents: &[Vec<u8>]) -> anyhow::Result<Arc<CertifiedKey>> {
    let [certificates, key] = contents else {
        anyhow::bail!("a certificate and a key are two files");
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .context("the certificate is not PEM")?;
    ensure!(!chain.is_empty(), "the file of the certificate holds none");
    let key = PrivateKeyDer::from_pem_slice(key).context("the key is not a private key in PEM")?;
    let certified = CertifiedKey::from_der(chain, key, &provider())
        .context("certificate and key cannot be used together")?;
    Ok(Arc::new(certified))
}
