//! Runs admin commands of a service in its environment.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::Cluster;
use crate::service::Service;

/// Generous: an admin command of a test needs seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The result of an admin command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The exit code. `None` if it was killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error: the log and error messages.
    pub stderr: String,
}

impl Cluster {
    /// An admin command of a service in the environment of the service, not started yet. As in scripts/dead_letters.sh, what handles dead
    /// letters logs in to the broker as its administrator.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn admin_command(&self, service: Service, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(service.binary()?);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment(service)?)
            .stdin(Stdio::null());
        if arguments.first() == Some(&"dead-letters") {
            command.envs(self.queue().variables());
        }
        Ok(command)
    }

    /// Runs an admin command of a service to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended after two minutes.
    pub async fn admin(&self, service: Service, arguments: &[&str], input: &str) -> anyhow::Result<Ended> {
        let mut command = self.admin_command(service, arguments)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let (pid, input) = (child.id(), input.to_owned());
        // A command that does not read closes its end, which is no failure.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let Ok(ended) = tokio::time::timeout(LIMIT, ended).await else {
            // Otherwise the thread that waits for it would delay the end of the test.
            Command::new("kill").args(["-9", &pid.to_string()]).status()?;
            anyhow::bail!("{} {arguments:?} did not end within {LIMIT:?}", service.name());
        };
        let Output {
            status,
            stdout,
            stderr,
        } = ended??;
        Ok(Ended {
            code: status.code(),
            stdout: String::from_utf8(stdout)?,
            stderr: String::from_utf8(stderr)?,
        })
    }
}
