//! The cluster as a program: what `run.sh --native`, `stop.sh` and `test.sh` call.

/// Prints a line for people. Nobody may read it any more (`./run.sh | head`): the cluster goes on all the same, where `println!` panics.
macro_rules! say {
    ($($line:tt)+) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)+);
    }};
}

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
