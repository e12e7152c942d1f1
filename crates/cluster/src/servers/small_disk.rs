//! A small disk for a server's data, for tests that fill it. It is memory, mounted where nobody sees it but one process of ours and those
//! who go through that: so the mount ends with this process, by whatever means, and the machine's own mounts stay as they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::account::Account;
use crate::process::{Output, Process, Program};
use crate::wait::wait_until;

/// Mounts the disk `$1` with the options `$2`, and becomes a process of user `$3` and group `$4` that does nothing. The signal comes again:
/// the kernel forgets it when the user changes.
const HOLD: &str = r#"mount -t tmpfs -o "$2" tmpfs "$1" &&
    exec setpriv --reuid="$3" --regid="$4" --clear-groups --pdeathsig KILL sleep infinity"#;

/// The name of the process once it has mounted the disk and changed its user. Before that the server's account may not go through it.
const HOLDS: &str = "sleep\n";

const MOUNTED_WITHIN: Duration = Duration::from_secs(30);

/// A disk that is gone when this is dropped: what uses it ends before.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    folder: PathBuf,
    holder: Process,
}

impl SmallDisk {
    /// Mounts a disk of this size for PostgreSQL's account at `folder`, which it makes.
    pub(crate) async fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let account = Account::for_server("postgres")?;
        let Some(Account { uid, gid }) = account else {
            bail!("a disk for the write model needs root, which alone may mount one");
        };
        fs::create_dir(folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        let options = format!("size={bytes},uid={uid},gid={gid},mode=0700");
        let mut program = Program::new("the holder of the disk", "unshare")
            .arguments(["--mount", "--", "sh", "-c", HOLD, "sh"])
            .arguments([folder.as_os_str()])
            .arguments([options, uid.to_string(), gid.to_string()]);
        program.environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
        program.end_with = Signal::KILL;
        let holder = program.start(&Output::in_memory())?;
        let process = PathBuf::from(format!("/proc/{}", holder.pid()));
        wait_until("the disk is mounted", MOUNTED_WITHIN, async || {
            // One that has ended will never hold it: its last lines say why.
            Ok(holder.still_runs().is_err() || fs::read_to_string(process.join("comm"))? == HOLDS)
        })
        .await?;
        holder.still_runs()?;
        let seen_there = folder.strip_prefix("/").context("no absolute path")?;
        Ok(Self {
            folder: process.join("root").join(seen_there),
            holder,
        })
    }

    /// Where it is: a path that works for this process, and for those of PostgreSQL's account.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes all room that is left.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        self.holder.still_runs()?;
        let ballast = self.ballast();
        // On a thread of its own: it takes longer than a task may keep others waiting.
        tokio::task::spawn_blocking(move || fill(&ballast)).await?
    }

    /// Gives back what [`SmallDisk::fill`] took.
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
    let mut file = file.context("could not make a file on the disk")?;
    match io::copy(&mut io::repeat(0), &mut file) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(error).context("could not fill the disk"),
        Ok(bytes) => bail!("the disk took {bytes} bytes and is not full"),
    }
}
