//! The cluster as a program: what `run.sh --native`, `stop.sh` and `test.sh` call.

mod arguments;
mod cluster;
mod contract;
mod control;
mod detach;
mod env_file;
mod folder;
mod leftovers;
mod part;
mod prices;
mod run;
mod shutdown;
mod supervisor;
mod test_servers;

pub use arguments::{FolderArgument, PriceSource, RunOptions};
pub use run::{run, stop};
pub use test_servers::{servers, with_servers};
