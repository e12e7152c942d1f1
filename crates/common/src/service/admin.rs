//! Admin processes (12-factor, XII): one-off work in the environment of a service.

use std::io;
use std::process::ExitCode;

use anyhow::anyhow;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::{DRAIN_DEADLINE, FLUSH_DEADLINE, complain, on_a_runtime, report_exception, stop_on_signals};
use crate::endpoints::Logging;
use crate::env::Env;
use crate::logging::{self, Outlet};

/// How work ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done: exit code 0.
    Done,
    /// Not what was hoped for, or not all of it, as the process has said already: exit code 1.
    NotDone,
}

/// Runs an admin process from its configuration to its exit code. It logs as the service does, but on standard error, because standard
/// output is for its results: they go through pipes into other programs.
///
/// SIGTERM and SIGINT cancel the token that `work` is given. Work that has not ended 4 s later is given up; work that was cut short says
/// so and is [`Outcome::NotDone`]. A failure is told in one sentence on standard error, and exits with 1.
pub fn administer<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    work: impl FnOnce(C, CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    on_a_runtime(name, live(name, configure, work))
}

async fn live<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    work: impl FnOnce(C, CancellationToken) -> F,
) -> u8
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut env = Env::from_process();
    let config = configure(&mut env);
    let log_endpoint = Logging::from_env(&mut env);
    let filter = env.optional("RUST_LOG");
    let log = logging::start(name, &log_endpoint, filter.as_deref(), Outlet::Stderr);

    let exit_code = match env.finish(config) {
        Err(faults) => {
            complain(&format!("{name}: {faults}"));
            tracing::error!(event = "service_configuration_exception_occurred", info = %faults);
            1
        }
        Ok(config) => match until_stopped(|stopping| work(config, stopping)).await {
            Ok(Outcome::Done) => 0,
            Ok(Outcome::NotDone) => 1,
            Err(error) => {
                // Whoever reads our output has gone, as `head` does: no one is left who would want to know.
                if !is_broken_pipe(&error) {
                    complain(&format!("{name}: {error:#}"));
                    report_exception(&error);
                }
                1
            }
        },
    };
    tracing::info!(event = "service_shut_down", exit_code);
    log.flush(FLUSH_DEADLINE).await;
    exit_code
}

async fn until_stopped<F>(work: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<Outcome>
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    let stopping = CancellationToken::new();
    stop_on_signals(&stopping)?;
    let too_late = async {
        stopping.cancelled().await;
        tokio::time::sleep(DRAIN_DEADLINE).await;
    };
    tokio::select! {
        outcome = work(stopping.clone()) => outcome,
        () = too_late => Err(anyhow!("stopped before the work was done")),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a result to standard output, however slowly it is read; a signal can still end the process meanwhile.
///
/// # Errors
/// When nobody reads it any more.
pub async fn print(text: &str) -> io::Result<()> {
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await?;
    stdout.flush().await
}
