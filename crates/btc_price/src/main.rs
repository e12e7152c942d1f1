//! Starts the process; nothing else.

use std::process::ExitCode;

use btc_price::app;
use btc_price::config::Config;

fn main() -> ExitCode {
    common::service::run("btc_price", Config::from_env, app::start)
}
