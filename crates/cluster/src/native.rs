//! The cluster as a program: what `run.sh --native`, `stop.sh` and `test.sh` call.

mod arguments;
mod cluster;
mod contract;
mod detach;
mod env_file;
mod folder;
mod leftovers;
mod prices;
mod run;
mod shutdown;
mod test_servers;

pub use arguments::{FolderArgument, PriceSource, RunOptions};
pub use run::{run, stop};
pub use test_servers::{servers, with_servers};
