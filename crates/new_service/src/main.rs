//! Adds a service to the workspace: `scripts/new_service.sh`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// Adds a service after the pattern of one that exists.
///
/// Makes crates/NAME with an example route, /healthcheck, /livez, /readyz, /metrics, the OpenAPI document and tests of its
/// binary; docker/services/NAME; an entry in docker-compose.yml; NAME_HOST and NAME_PORT in .env. When anything fails, nothing
/// is changed. An interrupted run may leave a folder .new_service.…, to be deleted.
#[derive(Parser)]
#[command(name = "scripts/new_service.sh", max_term_width = 110)]
struct Arguments {
    /// Name of the crate, its binary, its image and its compose service, in snake_case
    name: String,

    /// The model: the new service gets its variables, what it waits for at its start, its dependencies and its compose entry, but
    /// not its routes or its code
    #[arg(long, value_name = "SERVICE", default_value = "fetch_buy_orders")]
    like: String,
}

/// Runs in the root folder of the workspace.
fn main() -> ExitCode {
    let Arguments { name, like } = Arguments::parse();
    match new_service::add_service(Path::new("."), &name, &like) {
        Ok(changed) => {
            println!("new_service: made {name} like {like}: {}", changed.join(", "));
            println!(
                "its tests:   cargo build --release --workspace --bins && cargo test --release -p {name}"
            );
            println!(
                "its image:   ./build_run_images.sh {name}; docker-compose up then starts it. It publishes no port on the host."
            );
            println!(
                "not done:    ./run.sh --native starts the services named in crates/cluster/src/service.rs; README.md lists them; \
                 Prometheus scrapes those of docker/prometheus/configure.sh."
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("new_service: {error:#}");
            ExitCode::FAILURE
        }
    }
}
