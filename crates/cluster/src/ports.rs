//! Free ports. Two test processes of one user never pick the same one.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::account::own_directory;

const MIN_PORT: u16 = 12_000;
const MAX_ATTEMPTS: usize = 500;

/// A port that is ours until this is dropped. The kernel releases the lock when the process ends.
#[derive(Debug)]
pub struct Lease {
    port: u16,
    _lock: File,
}

impl Lease {
    /// Takes a free port outside the kernel's ephemeral range. Within it, an outgoing connection could take the port while a
    /// service restarts.
    ///
    /// # Errors
    /// When none was found, because thousands are taken.
    pub fn take() -> anyhow::Result<Self> {
        let folder = folder_in(&std::env::temp_dir())?;
        let candidates = candidates();
        for _ in 0..MAX_ATTEMPTS {
            let random = uuid::Uuid::new_v4().as_u128() % u128::from(candidates.end - candidates.start);
            let port = candidates.start + u16::try_from(random).unwrap_or(0);
            if let Some(lock) = lock(&folder, port)
                && is_free(port)
            {
                return Ok(Self { port, _lock: lock });
            }
        }
        bail!("found no free port in {candidates:?} after {MAX_ATTEMPTS} attempts")
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Whether nothing listens on this port of this machine.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The folder of the locks, one for each user: nobody else can make files or links in it.
fn folder_in(temporary: &Path) -> anyhow::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = temporary.join(format!("pydist-cluster-ports-{user}"));
    own_directory(&folder)?;
    Ok(folder)
}

fn lock(folder: &Path, port: u16) -> Option<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(port.to_string()))
        .ok()?;
    file.try_lock().ok()?;
    Some(file)
}

fn candidates() -> Range<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut limits = text
        .split_whitespace()
        .filter_map(|number| number.parse::<u16>().ok());
    match (limits.next(), limits.next()) {
        (Some(low), _) if low > MIN_PORT + 5_000 => MIN_PORT..low,
        (Some(_), Some(high)) if high < 60_000 => high + 1..u16::MAX,
        _ => MIN_PORT..32_768,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_folder_that_another_user_has_planted_is_refused_and_not_followed() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder_in(temporary.path()).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(folder_in(temporary.path()).unwrap(), folder);

        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = folder_in(temporary.path()).unwrap_err().to_string();
        assert!(refused.contains("other users can use it"), "{refused}");

        fs::remove_dir(&folder).unwrap();
        let elsewhere = temporary.path().join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
        let refused = folder_in(temporary.path()).unwrap_err().to_string();
        assert!(refused.contains("is a link"), "{refused}");
        assert_eq!(
            (mode(&elsewhere), fs::read_dir(&elsewhere).unwrap().count()),
            (0o700, 0)
        );
    }

    #[test]
    fn a_leased_port_is_not_leased_twice() {
        let leases: Vec<Lease> = (0..50).map(|_| Lease::take().unwrap()).collect();
        let mut ports: Vec<u16> = leases.iter().map(Lease::port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), leases.len());
    }
}
