//! How a process of a service starts and stops: one that serves ([`serve`]), and an admin process that an operator starts beside it
//! ([`run_admin`]).

mod admin;
mod command_line;
mod libpq;
mod open_files;
mod process;
mod trace_export;

pub use admin::{Outcome, print, run_admin};
pub use command_line::{Arguments, NoArguments, run_cli};

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::env::Env;
use crate::logging::Outlet;
use crate::metrics;
use process::{DRAIN_DEADLINE, report_exception, run_process};

/// Spans are flushed before the log, which may have to report on them.
const TRACE_FLUSH_DEADLINE: Duration = Duration::from_millis(300);

/// The life of a service, shared with its tasks.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stopping: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    /// Runs a task for as long as the service lives. If it ends, fails or panics before the service was asked to stop, the whole service
    /// stops, and the exit code is 1.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            let error = match tokio::spawn(task).await {
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

    async fn drain(&self) {
        self.tasks.close();
        let drained = tokio::time::timeout(DRAIN_DEADLINE, self.tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(
                "tasks still ran after the drain deadline of {DRAIN_DEADLINE:?} and were given up"
            );
        }
    }
}

/// Runs a service that has no commands of its own: reads the command line ([`run_cli`]) and serves ([`serve`]).
pub fn run<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    start: impl FnOnce(C, Lifecycle) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    run_cli(name, |_: NoArguments| serve(name, configure, start))
}

/// Runs a service, from reading its configuration to its exit code. Calls `start`, which spawns the tasks of the service, and then waits for
/// SIGTERM or SIGINT, which are heeded from the beginning. Tasks then have 4 s to finish their work.
///
/// The exit code is 1 if the configuration is faulty (each fault is reported), if `start` fails, or if a task ends too early. Being asked
/// to stop is a success, also while `start` still waits for a dependency.
pub fn serve<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    start: impl FnOnce(C, Lifecycle) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let configure = |env: &mut Env| (configure(env), trace_export::Config::from_env(env, name));
    run_process(
        name,
        Outlet::Stdout,
        configure,
        async |(config, traces), stopping| {
            open_files::raise_limit();
            metrics::show_process(name);
            let traces = traces.map(|traces| traces.start(name)).transpose()?;
            let lifecycle = Lifecycle {
                stopping,
                tasks: TaskTracker::new(),
                failed: Arc::default(),
            };
            let started = serve_until_stopped(&lifecycle, start(config, lifecycle.clone())).await;
            if let Some(traces) = traces {
                trace_export::flush(traces, TRACE_FLUSH_DEADLINE).await;
            }
            started?;
            Ok(if lifecycle.failed.load(Ordering::Relaxed) {
                Outcome::NotDone
            } else {
                Outcome::Done
            })
        },
    )
}

async fn serve_until_stopped(
    lifecycle: &Lifecycle,
    start: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    match lifecycle.stopping.run_until_cancelled(start).await {
        Some(started) => started?,
        // Asked to stop while it still waited for a dependency.
        None => return Ok(()),
    }
    tracing::info!(event = "service_started");
    lifecycle.stopping.cancelled().await;
    lifecycle.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_fails_while_the_start_still_waits_ends_the_process_with_1() {
        let code = serve(
            "test",
            |_| (),
            async |(), lifecycle: Lifecycle| {
                lifecycle.spawn("task", async { anyhow::bail!("it failed") });
                std::future::pending().await
            },
        );
        assert_eq!(code, ExitCode::FAILURE);
    }
}
