//! Starts the process; nothing else.

use std::process::ExitCode;

use {{name}}::app;
use {{name}}::config::Config;

fn main() -> ExitCode {
    common::service::run("{{name}}", Config::from_env, app::start)
}
