//! A cluster in the background: another process of this program, with its output in a file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::arguments::RunOptions;
use super::folder::Folder;
use super::shutdown::ShutdownSignal;

/// Starts it, prints its output, and returns when it is healthy or has failed.
pub(crate) async fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let mut shutdown = ShutdownSignal::listen()?;
    let folder = Folder::make(&options.folder.path)?;
    // Fails if a cluster runs, so that its log is not overwritten. The child takes the lock again.
    drop(folder.lock()?);
    let log_path = folder.background_log();
    let log = private_log(&log_path).with_context(|| format!("could not write {}", log_path.display()))?;
    let own_arguments = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--detach");
    let mut child = Command::new(std::env::current_exe()?)
        .args(own_arguments)
        .arg("--in-background")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("could not start the process in the background")?;
    let mut output = File::open(&log_path)?;
    let ready = child.id().to_string();
    loop {
        let ended = child.try_wait()?;
        let healthy = fs::read_to_string(folder.ready_file()).is_ok_and(|pid| pid == ready);
        let mut text = Vec::new();
        output.read_to_end(&mut text)?;
        // Whether anyone reads it or not, the cluster comes up.
        let _ = std::io::stdout().write_all(&text);
        if let Some(status) = ended {
            return Ok(ExitCode::from(
                status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(1),
            ));
        }
        if healthy {
            say!("The cluster runs in the background; ./stop.sh stops it.");
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = shutdown.wait() => {
                if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    }
}

/// An empty file that no other user can read, because the output has the passwords for people.
fn private_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // It may be there from before.
    log.set_permissions(Permissions::from_mode(0o600))?;
    Ok(log)
}
