//! Starts the process; nothing else.

use std::process::ExitCode;

use common::endpoints::Database;
use common::env::Env;
use common::service;
use create_buy_order::arguments::{Arguments, Command};
use create_buy_order::{app, checksums, config::Config, republish, void};

const NAME: &str = "create_buy_order";

fn main() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, Config::from_env, app::start),
        Some(Command::Republish(options)) => {
            service::run_admin(NAME, republish::Config::from_env, |config, stopping| {
                republish::run(config, options, stopping)
            })
        }
        Some(Command::Void(options)) => service::run_admin(NAME, write_model, |config, stopping| {
            void::run(config, options, stopping)
        }),
        Some(Command::Checksums(options)) => service::run_admin(NAME, write_model, |config, stopping| {
            checksums::run(config, options, stopping)
        }),
    })
}

/// All that some commands need to be told.
fn write_model(env: &mut Env) -> Database {
    Database::from_env(env, "WRITE_MODEL_DB")
}
