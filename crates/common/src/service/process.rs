//! What every process of a service does, whether it serves or is an admin process: configuration, log, signals, exit code.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::endpoints;
use crate::env::Env;
use crate::http::CannotListen;
use crate::logging::{self, Outlet};

/// Work that is in progress may take this long after the signal; shorter than the grace period of docker-compose.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(4);

const LOG_FLUSH_DEADLINE: Duration = Duration::from_millis(700);

/// Runs a process to its exit code. It reads the configuration and reports every fault of it, sets up the log, cancels the token that `work`
/// gets at SIGTERM and SIGINT, and flushes the log on every path.
pub(super) fn run_process<C, F>(
    name: &'static str,
    outlet: Outlet,
    configure: impl FnOnce(&mut Env) -> C,
    work: impl FnOnce(C, CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report_on_stderr(&format!("{name}: the async runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let exit_code = runtime.block_on(async {
        // Fails only if a provider is installed already, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut env = Env::from_process();
        env.deployment();
        let config = configure(&mut env);
        let log_server = endpoints::log_server(&mut env);
        let filter = env.optional("RUST_LOG");
        let log = logging::start(name, log_server, filter.as_deref(), outlet);

        let exit_code = match env.finish(config) {
            Ok(config) => {
                let ended = async { work(config, cancelled_by_signals()?).await };
                exit_code(ended.await)
            }
            Err(faults) => {
                report_on_stderr(&format!("{name}: {faults}"));
                tracing::error!(event = "service_configuration_exception_occurred", info = %faults);
                1
            }
        };
        tracing::info!(event = "service_shut_down", exit_code);
        log.flush(LOG_FLUSH_DEADLINE).await;
        exit_code
    });
    runtime.shutdown_background(); // a name lookup that hangs in a thread must not delay the exit
    ExitCode::from(exit_code)
}

/// A token that SIGTERM and SIGINT cancel.
fn cancelled_by_signals() -> io::Result<CancellationToken> {
    let stopping = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let stopping = stopping.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stopping.cancel();
        });
    }
    Ok(stopping)
}

fn exit_code(ended: anyhow::Result<Outcome>) -> u8 {
    match ended {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::NotDone) => 1,
        Err(error) => {
            report_exception(&error);
            1
        }
    }
}

pub(super) fn report_exception(error: &anyhow::Error) {
    let event = if error.is::<CannotListen>() {
        "service_web_serve_exception_occurred"
    } else {
        "service_run_logic_exception_occurred"
    };
    tracing::error!(event, info = format!("{error:#}"));
}

/// For faults that a person who starts the process must see, also without a log.
#[expect(clippy::print_stderr, reason = "there may be no log yet")]
pub(super) fn report_on_stderr(sentence: &str) {
    eprintln!("{sentence}");
}
