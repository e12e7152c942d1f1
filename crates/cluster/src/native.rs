//! The cluster as a program: what `run.sh --native`, `stop.sh` and `test.sh` call.

mod contract;
mod detach;
mod env_file;
mod folder;
mod for_tests;
mod leftovers;
mod parts;
mod prices;
mod run;

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use for_tests::{servers, with_servers};
pub use run::{run, stop};

/// Where a cluster keeps its data.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Folder of the data, the logs and the lock of the running cluster
    #[arg(long, default_value = ".cluster")]
    pub folder: PathBuf,
}

/// What `run` does.
#[derive(Debug, Clone, clap::Args)]
pub struct RunOptions {
    /// Where the cluster lives.
    #[command(flatten)]
    pub place: Place,
    /// The environment contract; a variable of this program's own environment comes before the one in the file
    #[arg(long, default_value = ".env")]
    pub env_file: PathBuf,
    /// Where prices come from
    #[arg(long, value_enum, default_value_t)]
    pub prices: Prices,
    /// Return when healthy, and go on in the background
    #[arg(long)]
    pub detach: bool,
    /// Forget all stored data first
    #[arg(long)]
    pub fresh: bool,
    /// Set by `--detach` for the process that stays
    #[arg(long, hide = true)]
    pub in_background: bool,
}

/// Where prices come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Prices {
    /// Coinbase where it can be reached, else the simulator, loudly
    #[default]
    Auto,
    /// What `CB_*` in the environment contract names
    Coinbase,
    /// The simulator
    Simulator,
}

/// The request to end: Ctrl-C, SIGTERM, or the terminal is closed.
pub(crate) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn armed() -> anyhow::Result<Self> {
        let arm = |kind| signal(kind).context("could not listen to signals");
        Ok(Self([
            arm(SignalKind::terminate())?,
            arm(SignalKind::interrupt())?,
            arm(SignalKind::hangup())?,
        ]))
    }

    /// Waits for any of them.
    pub(crate) async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
