//! A small disk for a server's data, for tests that fill it. It is a tmpfs in the mount namespace of a process of ours, and is reached through
//! `/proc/PID/root`. So it ends with this process, even if that is killed, and the mounts of the machine do not change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::account::Account;
use crate::process::{Output, Process, Program};
use crate::wait::wait_until;

/// Mounts the disk `$1` with the options `$2`, then sleeps as user `$3` and group `$4`. The parent-death signal is set again, because the kernel
/// clears it when the user changes.
const HOLD: &str = r#"mount -t tmpfs -o "$2" tmpfs "$1" &&
    exec setpriv --reuid="$3" --regid="$4" --clear-groups --pdeathsig KILL sleep infinity"#;

/// The name of the process once it has mounted the disk and changed its user. Before that, the server's account cannot use its `/proc/PID/root`.
const HOLDER_NAME: &str = "sleep\n";

const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// A disk that is gone when this is dropped. What uses it must have ended before.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    folder: PathBuf,
    holder: Process,
}

impl SmallDisk {
    /// Creates `folder` and mounts a disk of this size there, for PostgreSQL's account.
    pub(crate) async fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let account = Account::for_server("postgres")?;
        let Some(Account { uid, gid }) = account else {
            bail!("a disk for the write model needs root, because mounting does");
        };
        fs::create_dir(folder)
            .with_context(|| format!("could not create the folder {}", folder.display()))?;
        let options = format!("size={bytes},uid={uid},gid={gid},mode=0700");
        let mut program = Program::new("the holder of the disk", "unshare")
            .arguments(["--mount", "--", "sh", "-c", HOLD, "sh"])
            .arguments([folder.as_os_str()])
            .arguments([options, uid.to_string(), gid.to_string()]);
        program.environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
        program.end_with = Signal::KILL;
        let holder = program.start(&Output::in_memory())?;
        let process = PathBuf::from(format!("/proc/{}", holder.pid()));
        wait_until("the disk is mounted", MOUNT_LIMIT, async || {
            // If it has ended, its last lines say why.
            Ok(holder.still_runs().is_err() || fs::read_to_string(process.join("comm"))? == HOLDER_NAME)
        })
        .await?;
        holder.still_runs()?;
        let seen_there = folder.strip_prefix("/").context("no absolute path")?;
        Ok(Self {
            folder: process.join("root").join(seen_there),
            holder,
        })
    }

    /// Its path, for this process and for those of PostgreSQL's account.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes all free space.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        self.holder.still_runs()?;
        let ballast = self.ballast();
        // This blocks for long, so it runs on a thread of its own.
        tokio::task::spawn_blocking(move || fill(&ballast)).await?
    }

    /// Frees the space that [`SmallDisk::fill`] took.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        self.holder.still_runs()?;
        fs::remove_file(self.ballast()).context("the disk was not filled")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

fn fill(ballast: &Path) -> anyhow::Result<()> {
    let file = fs::File::options().create(true).append(true).open(ballast);
    let mut file = file.context("could not create a file on the disk")?;
    match io::copy(&mut io::repeat(0), &mut file) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(error).context("could not fill the disk"),
        Ok(bytes) => bail!("the disk took {bytes} bytes and is not full"),
    }
}
