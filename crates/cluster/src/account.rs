//! The unprivileged account of the servers when this process is root: PostgreSQL refuses to run as root.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::process::geteuid;

/// An account of `/etc/passwd`.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

impl Account {
    /// The account for a server: `None` when this process is not root, else that of the package, else `nobody`.
    pub(crate) fn for_server(package_account: &str) -> anyhow::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        [package_account, "nobody"]
            .iter()
            .find_map(|name| find(&accounts, name))
            .map(Some)
            .with_context(|| format!("the servers refuse to run as root, and there is no account `{package_account}` or `nobody`"))
    }
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    Some(Account {
        uid: numbers.next()?.parse().ok()?,
        gid: numbers.next()?.parse().ok()?,
    })
}

/// Creates `directory` and its parents. Only the account can use `directory`.
pub(crate) fn private_directory(directory: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let context = || format!("could not create the folder {}", directory.display());
    fs::create_dir_all(directory).with_context(context)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(context)?;
    own(directory, account)
}

/// Creates `directory`, or verifies that it is there: a real one, of this user, that no other user can use. In a folder that all users share,
/// another one may have made it first, to have this process write where it should not.
pub(crate) fn own_directory(directory: &Path) -> anyhow::Result<()> {
    let context = || format!("could not create the folder {}", directory.display());
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        created => created.with_context(context)?,
    }
    let found = fs::symlink_metadata(directory).with_context(context)?;
    ensure!(
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0,
        "{} is a link, or other users can use it: remove it, or set TMPDIR to a folder of your own",
        directory.display()
    );
    Ok(())
}

/// Writes a file that only the account can read.
pub(crate) fn private_file(path: &Path, text: &str, account: Option<&Account>) -> anyhow::Result<()> {
    let context = || format!("could not write {}", path.display());
    // A cookie is read-only even for its owner, so it is replaced.
    if path.exists() {
        fs::remove_file(path).with_context(context)?;
    }
    fs::write(path, text).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).with_context(context)?;
    own(path, account)
}

/// The nearest ancestor that other accounts may not enter.
pub(crate) fn closed_ancestor(directory: &Path) -> Option<PathBuf> {
    directory
        .ancestors()
        .find(|ancestor| fs::metadata(ancestor).is_ok_and(|data| data.permissions().mode() & 0o001 == 0))
        .map(Path::to_path_buf)
}

fn own(path: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let Some(account) = account else { return Ok(()) };
    chown(path, Some(account.uid), Some(account.gid))
        .with_context(|| format!("could not hand {} to account {}", path.display(), account.uid))
}
