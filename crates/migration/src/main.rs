//! Starts the process.

use std::process::ExitCode;

use common::service;
use migration::app::{self, Arguments};
use migration::config::Config;

fn main() -> ExitCode {
    service::obey("migration", |arguments: Arguments| {
        if arguments.once {
            service::administer("migration", Config::from_env, app::migrate_once)
        } else {
            service::serve("migration", Config::from_env, app::start)
        }
    })
}
