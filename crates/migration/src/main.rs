//! Starts the process.

use std::process::ExitCode;

use common::service;
use migration::app::{self, Arguments};
use migration::config::Config;

fn main() -> ExitCode {
    service::run_cli("migration", |arguments: Arguments| {
        if arguments.once {
            service::run_admin("migration", Config::from_env, app::migrate_once)
        } else {
            service::serve("migration", Config::from_env, app::start)
        }
    })
}
