//! One process of a service on one port, over all its runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;

use crate::ports::Lease;
use crate::process::{Output, Process, Program, locked};
use crate::service::Service;
use crate::wait::wait_until;

/// As in `docker/services/Dockerfile`, which gives the reasons.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
    ("MALLOC_TRIM_THRESHOLD_", "4194304"),
];

/// Generous: several clusters may start at once on a small machine.
const HEALTHY_LIMIT: Duration = Duration::from_secs(60);
/// Longer than the drain deadline of a service.
const END_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Replica {
    service: Service,
    port: u16,
    program: Program,
    output: Output,
    process: Mutex<Option<Arc<Process>>>,
    /// Of the last start.
    environment: Mutex<BTreeMap<String, String>>,
    _lease: Option<Lease>,
}

impl Replica {
    /// A process that is not started yet.
    pub(crate) fn new(service: Service, lease: Lease, output: Output) -> Self {
        Self::build(service, lease.port(), Some(lease), output)
    }

    /// A process that is not started yet, on a given port, with its output in a file.
    pub(crate) fn with_log_file(service: Service, port: u16, log: &Path) -> anyhow::Result<Self> {
        Ok(Self::build(service, port, None, Output::to_file(log)?))
    }

    fn build(service: Service, port: u16, lease: Option<Lease>, output: Output) -> Self {
        let mut program = Program::new(service.name(), "");
        program.grace = END_LIMIT;
        Self {
            service,
            port,
            program,
            output,
            process: Mutex::new(None),
            environment: Mutex::default(),
            _lease: lease,
        }
    }

    pub(crate) fn service(&self) -> Service {
        self.service
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.speaks_tls() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn speaks_tls(&self) -> bool {
        let environment = locked(&self.environment);
        let certificate = environment.get("SERVICE_TLS_CERT_FILE");
        certificate.is_some_and(|file| !file.is_empty())
    }

    /// Starts it. A process that still runs on this port is killed.
    pub(crate) fn start(&self, environment: BTreeMap<String, String>) -> anyhow::Result<()> {
        locked(&self.environment).clone_from(&environment);
        let mut program = self.program.clone();
        program.path = self.service.binary()?;
        let allocator = ALLOCATOR.map(|(name, value)| (name.to_owned(), value.to_owned()));
        program.environment = environment.into_iter().chain(allocator).collect();
        let mut process = locked(&self.process);
        // It must have ended before the new one needs the port, even if others still hold a reference to it.
        if let Some(before) = process.take() {
            let _ = before.kill();
        }
        *process = Some(Arc::new(program.start(&self.output)?));
        Ok(())
    }

    pub(crate) fn process(&self) -> anyhow::Result<Arc<Process>> {
        locked(&self.process)
            .clone()
            .with_context(|| format!("{} was not started", self.service.name()))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lines()
    }

    pub(crate) fn tail(&self) -> String {
        self.output.tail()
    }

    /// Waits until it answers `/healthcheck`. Fails at once when it has ended.
    pub(crate) async fn wait_until_healthy(&self, client: &reqwest::Client) -> anyhow::Result<()> {
        let process = self.process()?;
        let healthy = wait_until("it is healthy", HEALTHY_LIMIT, async || {
            if process.ended().is_some() {
                return Ok(true);
            }
            self.is_healthy(client).await
        });
        let outcome = healthy.await;
        process.still_runs()?;
        outcome.with_context(|| format!("{}; its last lines:\n{}", self.service.name(), self.output.tail()))
    }

    /// Whether it answers `/healthcheck`.
    pub(crate) async fn is_healthy(&self, client: &reqwest::Client) -> anyhow::Result<bool> {
        if self.speaks_tls() {
            return self.healthcheck().await;
        }
        let request = client.get(self.url() + "/healthcheck");
        let answer = request.timeout(Duration::from_secs(2)).send().await?;
        Ok(answer.status().is_success())
    }

    /// Whether the service answers its own `healthcheck` command, which trusts its certificate, whoever has signed it.
    async fn healthcheck(&self) -> anyhow::Result<bool> {
        let mut command = Command::new(self.service.binary()?);
        command
            .arg("healthcheck")
            .env_clear()
            .envs(&*locked(&self.environment));
        let asked = tokio::task::spawn_blocking(move || command.output());
        let output = asked.await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{said}");
        Ok(true)
    }
}
