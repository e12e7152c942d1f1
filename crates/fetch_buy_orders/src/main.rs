//! Starts the process.

use std::process::ExitCode;

use fetch_buy_orders::app;
use fetch_buy_orders::config::Config;

fn main() -> ExitCode {
    common::service::run("fetch_buy_orders", Config::from_env, app::start)
}
