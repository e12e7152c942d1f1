//! The cluster as a program: what `run.sh --native`, `stop.sh` and `test.sh` call.

mod for_tests;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use for_tests::{servers, with_servers};

/// Where a cluster keeps its data, and what it reads.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Folder of data, logs and the lock of the running cluster
    #[arg(long, default_value = ".cluster")]
    pub folder: PathBuf,
}

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct RunOptions {
    /// Where
    #[command(flatten)]
    pub place: Place,
}

/// Runs.
///
/// # Errors
/// When.
pub async fn run(_options: RunOptions) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}

/// Stops.
///
/// # Errors
/// When.
pub async fn stop(_place: &Place) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}

/// The request to end: Ctrl-C or SIGTERM.
pub(crate) struct Interrupt {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupt {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn armed() -> anyhow::Result<Self> {
        let arm = |kind| signal(kind).context("could not listen to signals");
        Ok(Self {
            terminate: arm(SignalKind::terminate())?,
            interrupt: arm(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
