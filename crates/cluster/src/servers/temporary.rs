//! Temporary folders of servers, and the removal of those that killed processes have left.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::Builder;

const PREFIX: &str = "pydist-cluster-";
const LOCK: &str = "lock";
/// A younger folder may belong to a process that has not locked it yet.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// A folder that is deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    path: PathBuf,
    _lock: File,
}

impl TemporaryFolder {
    /// Creates a folder that other accounts can enter, because servers may use one of them.
    pub(crate) fn create() -> anyhow::Result<Self> {
        remove_abandoned();
        let folder = Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .context("could not create a temporary folder")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let lock = File::create(folder.path().join(LOCK))
            .context("could not create the lock of a temporary folder")?;
        lock.try_lock()?;
        let path = folder.keep();
        Ok(Self { path, _lock: lock })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Retried, because a helper process of a server may still be writing a file.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    // Not those of other users, nor links.
    let is_ours = |path: &Path| {
        let found = fs::symlink_metadata(path);
        found.is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
    {
        let path = entry.path();
        if !is_ours(&path) {
            continue;
        }
        let lock_file = path.join(LOCK);
        let age = fs::metadata(&lock_file)
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        let unlocked = || File::open(&lock_file).is_ok_and(|file| file.try_lock().is_ok());
        if age.is_some_and(|age| age > ABANDONED_AFTER) && unlocked() {
            let _ = fs::remove_dir_all(path);
        }
    }
}
