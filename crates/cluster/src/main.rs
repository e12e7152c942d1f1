//! The local cluster as a program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cluster::native::{self, RunOptions};

/// The local cluster: private PostgreSQL and RabbitMQ servers and the five services.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and stay until Ctrl-C or SIGTERM
    Run(RunOptions),
    /// Stop the cluster that `run` started, and nothing else
    Stop(native::FolderArgument),
    /// Start servers for tests, print their addresses as JSON, stop when standard input closes
    Servers,
    /// Start servers for tests, run a command that uses them, return its exit code
    WithServers {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<std::ffi::OsString>,
    },
}

#[tokio::main]
#[expect(
    clippy::print_stderr,
    reason = "a program for people: this is its error message"
)]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => native::run(options).await,
        Command::Stop(folder) => native::stop(&folder).await,
        Command::Servers => native::servers().await,
        Command::WithServers { command } => native::with_servers(&command).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cluster: {error:#}");
        ExitCode::FAILURE
    })
}
