//! How a process of a service starts and stops; the same for all: one that serves ([`serve`]), and one that an operator starts beside
//! it ([`administer`]).

mod admin;
mod command_line;
mod libpq;
mod open_files;

pub use admin::{Outcome, administer, print};
pub use command_line::{Arguments, NoArguments, obey};

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoints::Logging;
use crate::env::Env;
use crate::http::CannotListen;
use crate::logging::{self, Outlet};
use crate::metrics;
use crate::trace::{self, Traces};

/// Work that was accepted may take this long after the signal; shorter than the grace period of docker-compose.
const DRAIN_DEADLINE: Duration = Duration::from_secs(4);

/// Before that of the log, which may have to report on it.
const TRACE_FLUSH_DEADLINE: Duration = Duration::from_millis(300);

const FLUSH_DEADLINE: Duration = Duration::from_millis(700);

/// The life of a service, shared with its tasks.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stopping: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    fn new() -> Self {
        Self {
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failed: Arc::default(),
        }
    }

    /// Runs a task for as long as the service lives. One that ends, fails or panics before the service was asked to stop takes its
    /// siblings with it, and the exit code is 1.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            let outcome = tokio::spawn(task).await;
            let error = match outcome {
                Ok(Ok(())) if lifecycle.stopping.is_cancelled() => return,
                Ok(Ok(())) => anyhow!("task {name} ended before it was asked to"),
                Ok(Err(error)) => error.context(format!("task {name} failed")),
                Err(panic) => anyhow!("task {name} panicked: {panic}"),
            };
            report_exception(&error);
            lifecycle.failed.store(true, Ordering::Relaxed);
            lifecycle.stopping.cancel();
        });
    }

    /// Cancelled when the service is asked to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }
}

/// A service that has no commands of its own: reads the command line ([`obey`]) and serves ([`serve`]).
pub fn run<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    start: impl FnOnce(C, Lifecycle) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    obey(name, |_: NoArguments| serve(name, configure, start))
}

/// Runs a service from its first line to its exit code: reads the configuration (names every fault and exits with 1), sets up logging,
/// heeds SIGTERM and SIGINT before the first connection attempt, calls `start`, waits, drains, and flushes the log on every path.
pub fn serve<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    start: impl FnOnce(C, Lifecycle) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    on_a_runtime(name, live(name, Lifecycle::new(), configure, start))
}

fn on_a_runtime(name: &'static str, life: impl Future<Output = u8>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{name}: the async runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let exit_code = runtime.block_on(life);
    runtime.shutdown_background(); // a name lookup that hangs in a thread must not hold up the exit
    ExitCode::from(exit_code)
}

async fn live<C, F>(
    name: &'static str,
    lifecycle: Lifecycle,
    configure: fn(&mut Env) -> C,
    start: impl FnOnce(C, Lifecycle) -> F,
) -> u8
where
    F: Future<Output = anyhow::Result<()>>,
{
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut env = Env::from_process();
    let config = configure(&mut env);
    let log_endpoint = Logging::from_env(&mut env);
    let trace_config = trace::Config::from_env(&mut env);
    let filter = env.optional("RUST_LOG");
    let log = logging::start(name, &log_endpoint, filter.as_deref(), Outlet::Stdout);

    open_files::raise_limit();
    metrics::start(name);

    let exit_code = match env.finish(config) {
        Err(faults) => {
            complain(&format!("{name}: {faults}"));
            tracing::error!(event = "service_configuration_exception_occurred", info = %faults);
            1
        }
        Ok(config) => match live_in_traces(
            name,
            &trace_config,
            live_with_signals(&lifecycle, start(config, lifecycle.clone())),
        )
        .await
        {
            Ok(()) => u8::from(lifecycle.failed.load(Ordering::Relaxed)),
            // A service that is stopped while it waits has ended well.
            Err(Ended::BeforeItStarted) => 0,
            Err(Ended::Failed(error)) => {
                report_exception(&error);
                1
            }
        },
    };
    tracing::info!(event = "service_shut_down", exit_code);
    log.flush(FLUSH_DEADLINE).await;
    exit_code
}

fn report_exception(error: &anyhow::Error) {
    let event = if error.is::<CannotListen>() {
        "service_web_serve_exception_occurred"
    } else {
        "service_run_logic_exception_occurred"
    };
    tracing::error!(event, info = format!("{error:#}"));
}

/// How a service came to no good end.
enum Ended {
    /// It was asked to stop while it still waited for what it needs.
    BeforeItStarted,
    Failed(anyhow::Error),
}

async fn live_in_traces(
    name: &'static str,
    config: &trace::Config,
    life: impl Future<Output = Result<(), Ended>>,
) -> Result<(), Ended> {
    let traces = Traces::start(name, config).map_err(Ended::Failed)?;
    let ended = life.await;
    traces.flush(TRACE_FLUSH_DEADLINE).await;
    ended
}

async fn live_with_signals(
    lifecycle: &Lifecycle,
    start: impl Future<Output = anyhow::Result<()>>,
) -> Result<(), Ended> {
    stop_on_signals(&lifecycle.stopping).map_err(|error| Ended::Failed(error.into()))?;
    tokio::select! {
        biased;
        started = start => started.map_err(Ended::Failed)?,
        () = lifecycle.stopping.cancelled() => return Err(Ended::BeforeItStarted),
    }
    tracing::info!(event = "service_started");
    lifecycle.stopping.cancelled().await;
    lifecycle.tasks.close();
    if tokio::time::timeout(DRAIN_DEADLINE, lifecycle.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("work in hand was given up after the drain deadline of {DRAIN_DEADLINE:?}");
    }
    Ok(())
}

fn stop_on_signals(stopping: &CancellationToken) -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let stopping = stopping.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stopping.cancel();
        });
    }
    Ok(())
}

/// For what must be said before, or without, a log.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn complain(sentence: &str) {
    eprintln!("{sentence}");
}
