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

impl Ended {
    /// Runs a command to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended after two minutes.
    pub async fn of(mut command: Command, input: &str) -> anyhow::Result<Self> {
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
            let arguments = command.get_args();
            anyhow::bail!(
                "{:?} {arguments:?} did not end within {LIMIT:?}",
                command.get_program()
            );
        };
        let Output {
            status,
            stdout,
            stderr,
        } = ended??;
        Ok(Self {
            code: status.code(),
            stdout: String::from_utf8(stdout)?,
            stderr: String::from_utf8(stderr)?,
        })
    }
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

    /// `create_buy_order void` for the order with this external id, not started yet. It logs in as the voider, who alone may void.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn void_command(&self, external_id: &str, reason: &str) -> anyhow::Result<Command> {
        let arguments = ["void", "--id", external_id, "--reason", reason];
        let mut command = self.admin_command(Service::CreateBuyOrder, &arguments)?;
        for variable in ["DB_USER", "DB_PWD"] {
            let value = self.contract.get(&format!("BUY_ORDER_VOIDER_{variable}"));
            let value = value.with_context(|| format!("BUY_ORDER_VOIDER_{variable} is missing"))?;
            command.env(format!("WRITE_MODEL_{variable}"), value);
        }
        Ok(command)
    }

    /// Runs `create_buy_order void` to its end.
    ///
    /// # Errors
    /// As of [`Ended::of`].
    pub async fn void(&self, external_id: &str, reason: &str) -> anyhow::Result<Ended> {
        Ended::of(self.void_command(external_id, reason)?, "").await
    }

    /// Runs an admin command of a service to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// As of [`Ended::of`].
    pub async fn admin(&self, service: Service, arguments: &[&str], input: &str) -> anyhow::Result<Ended> {
        Ended::of(self.admin_command(service, arguments)?, input).await
    }
}
