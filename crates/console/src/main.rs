//! Starts the process.

use std::process::ExitCode;

use console::app;
use console::config::Config;

fn main() -> ExitCode {
    common::service::run("console", Config::from_env, app::start)
}
