//! Runs other programs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::sleep;

/// How often to check whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running program. When dropped, it is killed with all its descendants.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).spawn().map(Self)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system cannot wait for it.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // Fails if it has just ended.
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// Runs a program and returns what it writes to stdout.
///
/// # Errors
/// When it is missing or fails. The message contains its output.
pub async fn output<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
    environment: &[(&str, &str)],
) -> anyhow::Result<String> {
    let name = program.as_ref().display().to_string();
    // Files, because pipes would have to be read while it runs.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut running =
        Running::start(&mut command).with_context(|| format!("could not run {name}: is it installed?"))?;
    let status = running.ended().await?;
    let text = written(stdout)?;
    ensure!(
        status.success(),
        "{name} failed ({status}):\n{text}\n{}",
        written(stderr)?
    );
    Ok(text)
}

fn written(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
