//! Starts the process; nothing else.

use std::process::ExitCode;

use common::service;
use create_buy_order::arguments::{Arguments, Command};
use create_buy_order::{app, checksums, config::Config, republish};

const NAME: &str = "create_buy_order";

fn main() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, Config::from_env, app::start),
        Some(Command::Republish(options)) => {
            service::run_admin(NAME, republish::Config::from_env, |config, stopping| {
                republish::run(config, options, stopping)
            })
        }
        Some(Command::Checksums(options)) => {
            service::run_admin(NAME, checksums::write_model, |config, stopping| {
                checksums::run(config, options, stopping)
            })
        }
    })
}
