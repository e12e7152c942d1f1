//! The command-line arguments of `run` and `stop`.

use std::path::PathBuf;

/// Where a cluster keeps its data.
#[derive(Debug, Clone, clap::Args)]
pub struct FolderArgument {
    /// Folder of the data, the logs and the lock of the running cluster
    #[arg(long = "folder", default_value = ".cluster")]
    pub path: PathBuf,
}

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunOptions {
    /// The folder of the cluster.
    #[command(flatten)]
    pub folder: FolderArgument,
    /// File with the environment contract; variables of the environment override it
    #[arg(long, default_value = ".env")]
    pub env_file: PathBuf,
    /// Source of prices
    #[arg(long, value_enum, default_value_t)]
    pub prices: PriceSource,
    /// Demand tokens from clients, of an issuer that is started with the cluster
    #[arg(long)]
    pub auth: bool,
    /// Return when the cluster is healthy, and keep it running in the background
    #[arg(long)]
    pub detach: bool,
    /// Delete all stored data first
    #[arg(long)]
    pub fresh: bool,
    /// Set by `--detach` for the process in the background
    #[arg(long, hide = true)]
    pub in_background: bool,
}

/// The source of prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PriceSource {
    /// Coinbase if it can be reached, else the simulator, with a warning
    #[default]
    Auto,
    /// The server that `CB_*` in the environment contract names
    Coinbase,
    /// The simulator
    Simulator,
}
