//! Certificate authorities that are read from PEM files.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Adds the certificates of a PEM file to `roots`.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no certificate that can be trusted.
pub(crate) fn add_authorities(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).context("cannot be read")? {
        roots
            .add(certificate.context("is not PEM")?)
            .context("holds a certificate that cannot be trusted")?;
    }
    ensure!(roots.len() > before, "holds no certificate");
    Ok(())
}
