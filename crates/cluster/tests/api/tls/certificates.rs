//! An authority of a test, and the certificates that servers show.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A certificate, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Right,
    OfAnotherAuthority,
    ForAnotherHost,
    Expired,
}

impl Shown {
    pub(super) const WRONG: [Self; 3] = [Self::OfAnotherAuthority, Self::ForAnotherHost, Self::Expired];

    /// What a client says that refuses it.
    pub(super) fn refusal(self) -> &'static str {
        match self {
            Self::Right => "nothing is wrong with it",
            Self::OfAnotherAuthority => "invalid peer certificate: UnknownIssuer",
            Self::ForAnotherHost => "certificate not valid for name",
            Self::Expired => "certificate expired: verification time",
        }
    }
}

/// A chain and its key, in PEM.
pub(super) struct Certificate {
    pub(super) chain: String,
    pub(super) key: String,
}

/// A folder with the certificate of an authority, and certificates of servers. Everybody may read it, as the servers have accounts of their
/// own.
pub(super) struct Certificates {
    folder: TempDir,
    authority: Issuer,
}

impl Certificates {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let certificates = Self {
            folder,
            authority: authority()?,
        };
        certificates.replace("ca.pem", &certificates.authority.pem())?;
        Ok(certificates)
    }

    /// The path of a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// From now on another authority signs, which the file names alone.
    pub(super) fn change_authority(&mut self) -> anyhow::Result<()> {
        self.authority = authority()?;
        self.replace("ca.pem", &self.authority.pem())
    }

    /// A new certificate.
    pub(super) fn issue(&self, shown: Shown) -> anyhow::Result<Certificate> {
        let hosts = match shown {
            Shown::ForAnotherHost => vec!["elsewhere.test".to_owned()],
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut parameters = CertificateParams::new(hosts)?;
        if shown == Shown::Expired {
            parameters.not_before = date_time_ymd(2024, 1, 1);
            parameters.not_after = date_time_ymd(2025, 1, 1);
        }
        parameters.distinguished_name.push(DnType::CommonName, "server");
        let key = KeyPair::generate()?;
        let signed = if shown == Shown::OfAnotherAuthority {
            parameters.signed_by(&key, &*authority()?)?
        } else {
            parameters.signed_by(&key, &*self.authority)?
        };
        Ok(Certificate {
            chain: signed.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Writes a new certificate into `{name}.crt` and `{name}.key`.
    pub(super) fn place(&self, name: &str, shown: Shown) -> anyhow::Result<()> {
        let Certificate { chain, key } = self.issue(shown)?;
        self.replace(&format!("{name}.key"), &key)?;
        self.replace(&format!("{name}.crt"), &chain)
    }

    /// Replaces a file atomically, as mounted secrets are.
    pub(super) fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
        Ok(fs::rename(new, self.path(name))?)
    }
}

fn authority() -> anyhow::Result<Issuer> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Two authorities of one name would be tried by their keys.
    let name = format!("authority {}", uuid::Uuid::new_v4());
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?)
}
