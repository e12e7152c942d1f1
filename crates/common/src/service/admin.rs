//! Admin processes (12-factor, XII): one-off work in the environment of a service.

use std::io;
use std::process::ExitCode;

use anyhow::anyhow;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::process::{DRAIN_DEADLINE, report_on_stderr, run_process};
use crate::env::Env;
use crate::logging::Outlet;

/// How a process ended that did not fail with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All work is done: exit code 0.
    Done,
    /// The result is negative, or some work is left, and the process has said so: exit code 1.
    NotDone,
}

/// Runs an admin process from its configuration to its exit code. Its log goes to standard error, because standard output is for its
/// results, which may be piped into another program.
///
/// SIGTERM and SIGINT cancel the token that `work` gets. Work that was cut short returns [`Outcome::NotDone`]. Work that has not ended 4 s
/// later is given up. An error is reported in one sentence on standard error, and the exit code is 1.
pub fn run_admin<C, F>(
    name: &'static str,
    configure: fn(&mut Env) -> C,
    work: impl FnOnce(C, CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    run_process(name, Outlet::Stderr, configure, async |config, stopping| {
        let too_late = async {
            stopping.cancelled().await;
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        let ended = tokio::select! {
            ended = work(config, stopping.clone()) => ended,
            () = too_late => Err(anyhow!("stopped before the work was done")),
        };
        match ended {
            // The reader of our output has closed the pipe, as `head` does, and needs no report.
            Err(error) if is_broken_pipe(&error) => Ok(Outcome::NotDone),
            Err(error) => {
                report_on_stderr(&format!("{name}: {error:#}"));
                Err(error)
            }
            done => done,
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a result to standard output. Waits for a slow reader without blocking the process: a signal can still end it.
///
/// # Errors
/// The reader has closed the pipe.
pub async fn print(text: &str) -> io::Result<()> {
    let mut stdout = tokio::io::stdout();
    stdout.write_all(text.as_bytes()).await?;
    stdout.flush().await
}
