//! The folder of a native cluster: lock, logs and data.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::account::{closed_ancestor, is_root};
use crate::process::remove_rotated_logs;

const MIN_FREE_BYTES: u64 = 1_000_000_000;

/// The folder, and the paths in it.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// The lock of a running cluster. The kernel releases it when the process ends.
#[derive(Debug)]
pub(crate) struct RunLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Folder {
    /// Creates the folder if it is missing.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("could not create the folder {}", path.display());
        fs::create_dir_all(path.join("logs")).with_context(context)?;
        Ok(Self(path.canonicalize().with_context(context)?))
    }

    /// The folder, if it exists.
    pub(crate) fn existing(path: &Path) -> Option<Self> {
        path.canonicalize().ok().map(Self)
    }

    /// Takes the lock and writes our process id into it.
    pub(crate) fn lock(&self) -> anyhow::Result<RunLock> {
        let mut file = self.open_lock()?;
        if file.try_lock().is_err() {
            let process = self
                .holder()
                .map_or_else(String::new, |pid| format!(" (process {pid})"));
            bail!("a cluster is already running{process}: ./stop.sh stops it");
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(RunLock(file))
    }

    /// Whether a cluster runs here, also one of another user.
    pub(crate) fn is_locked(&self) -> anyhow::Result<bool> {
        let path = self.0.join("lock");
        match File::open(&path) {
            Ok(file) => Ok(file.try_lock().is_err()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("could not open {}", path.display())),
        }
    }

    /// The process id in the lock file.
    pub(crate) fn holder(&self) -> Option<i32> {
        fs::read_to_string(self.0.join("lock")).ok()?.trim().parse().ok()
    }

    /// The output of a cluster in the background.
    pub(crate) fn background_log(&self) -> PathBuf {
        self.0.join("run.log")
    }

    /// The file with the process id of a healthy cluster.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.0.join("ready")
    }

    /// The file with the key that signs tokens. It is there while the cluster demands tokens.
    pub(crate) fn issuer_key(&self) -> PathBuf {
        self.0.join("issuer.key")
    }

    /// The file with the ids of the server processes.
    pub(crate) fn processes_file(&self) -> PathBuf {
        self.0.join("processes")
    }

    /// A new log file. The last one of the previous run is kept as `.old.log`.
    pub(crate) fn new_log(&self, name: &str) -> PathBuf {
        let log = self.0.join("logs").join(format!("{name}.log"));
        let _ = fs::rename(&log, log.with_extension("old.log"));
        remove_rotated_logs(&log);
        log
    }

    /// The folder of the logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The folder of the servers' data: within this one, or in `/var/tmp` if the accounts of the servers cannot enter this one.
    pub(crate) fn data(&self) -> anyhow::Result<PathBuf> {
        let data = self.0.join("data");
        if !is_root() {
            fs::create_dir_all(&data)?;
            return Ok(data);
        }
        // With a strict umask, other accounts could not enter our own folders.
        fs::create_dir_all(&data)?;
        for ours in [&self.0, &data] {
            fs::set_permissions(ours, fs::Permissions::from_mode(0o755))?;
        }
        let Some(closed) = closed_ancestor(&data) else {
            return Ok(data);
        };
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        let elsewhere = PathBuf::from(format!("/var/tmp/pydist-cluster-data-{:016x}", hasher.finish()));
        if !elsewhere.exists() {
            fs::create_dir(&elsewhere)?;
        }
        // Anyone can create folders in /var/tmp.
        if fs::symlink_metadata(&elsewhere)?.uid() != 0 || !elsewhere.is_dir() || elsewhere.is_symlink() {
            bail!("{} belongs to another user: remove it", elsewhere.display());
        }
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o711))?;
        say!(
            "The servers do not run as root, and their accounts cannot enter {}: their data is in {}.",
            closed.display(),
            elsewhere.display()
        );
        Ok(elsewhere)
    }

    /// Fails if the disk is nearly full.
    pub(crate) fn check_space(data: &Path) -> anyhow::Result<()> {
        let space = rustix::fs::statvfs(data)
            .with_context(|| format!("could not read the free space of {}", data.display()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < MIN_FREE_BYTES {
            bail!(
                "the disk of {} is full: {} MB are free, the cluster needs 1000 MB",
                data.display(),
                free / 1_000_000
            );
        }
        Ok(())
    }

    fn open_lock(&self) -> anyhow::Result<File> {
        let path = self.0.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        file.with_context(|| format!("could not open {}", path.display()))
    }
}
