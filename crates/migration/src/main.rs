//! Starts the process; nothing else.

use std::process::ExitCode;

use migration::app;
use migration::config::Config;

fn main() -> ExitCode {
    common::service::run_with_flags("migration", &[app::ONCE], Config::from_env, app::start)
}
