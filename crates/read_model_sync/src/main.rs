//! Starts the process.

use std::process::ExitCode;

use common::endpoints::Queue;
use common::service;
use read_model_sync::arguments::{Arguments, Command};
use read_model_sync::{Config, app, config, dead_letters, verify};

const NAME: &str = "read_model_sync";

fn main() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, Config::from_env, app::start),
        Some(Command::DeadLetters(task)) => service::run_admin(NAME, Queue::from_env, |queue, stopping| {
            dead_letters::run(queue, task, stopping)
        }),
        Some(Command::Verify(options)) => {
            service::run_admin(NAME, config::read_model, |read_model, stopping| {
                verify::run(read_model, options, stopping)
            })
        }
    })
}
