//! Starts the process; nothing else.

use std::process::ExitCode;

use read_model_sync::{Config, app};

fn main() -> ExitCode {
    common::service::run("read_model_sync", Config::from_env, app::start)
}
