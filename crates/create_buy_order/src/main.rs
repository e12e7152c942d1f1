//! Starts the process; nothing else.

use std::process::ExitCode;

use create_buy_order::{app, config::Config, republish::REPUBLISH};

fn main() -> ExitCode {
    common::service::run_with_flags("create_buy_order", &[REPUBLISH], Config::from_env, app::start)
}
