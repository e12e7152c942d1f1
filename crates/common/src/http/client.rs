//! The HTTP client with which a service asks another, or the outer world.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A peer's idle connection is let go before common servers and load balancers (60 s) close it under a request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An HTTP/1.1 client: `timeout` bounds a whole request, from the first connection attempt to the end of the
/// body. Redirects come back as the answers they are.
///
/// TLS trusts the roots of webpki-roots, because a run image has no certificate store, and the certificates of
/// the PEM file `extra_ca`. Proxy variables of the environment are not read: what counts is in the environment
/// contract.
///
/// # Errors
///
/// `extra_ca` cannot be read, or holds no usable certificate.
pub fn client(timeout: Duration, extra_ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(extra_ca)?)
        .http1_only()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .build()
        .context("the HTTP client could not be built")
}

fn tls(extra_ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = extra_ca {
        trust(&mut roots, path).with_context(|| format!("EXTRA_CA_FILE {}", path.display()))?;
    }
    // The provider is named here, so that a client can be built before a process has installed its default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn trust(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).context("cannot be read")? {
        roots
            .add(certificate.context("is not PEM")?)
            .context("holds a certificate that cannot be trusted")?;
    }
    ensure!(roots.len() > before, "holds no certificate");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::client;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_without_a_private_ca_is_built_without_an_installed_provider() -> anyhow::Result<()> {
        client(TIMEOUT, None).map(drop)
    }

    #[test]
    fn a_ca_file_that_is_missing_or_empty_is_refused_by_its_name() -> anyhow::Result<()> {
        let path = std::env::temp_dir().join(format!("pydist-empty-ca-{}.pem", std::process::id()));
        for _ in 0..2 {
            let refusal = client(TIMEOUT, Some(&path))
                .err()
                .map(|error| format!("{error:#}"));
            assert!(refusal.is_some_and(|text| text.contains("pydist-empty-ca")));
            std::fs::File::create(&path)?.write_all(b"no certificate here\n")?;
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
