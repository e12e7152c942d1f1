//! Starts the process; nothing else.

use std::process::ExitCode;

use create_buy_order::{app, config::Config};

fn main() -> ExitCode {
    common::service::run("create_buy_order", Config::from_env, app::start)
}
