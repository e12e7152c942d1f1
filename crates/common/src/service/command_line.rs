//! The command line: the commands that every service has, and the arguments that a service adds.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command, Subcommand as _};

use super::libpq;
use super::process::report_on_stderr;
use crate::env::Env;
use crate::http::health;

// Commands that ask the running service of the same environment. Not a doc comment, which would be the help text of the whole service.
#[derive(clap::Subcommand)]
enum Probe {
    /// Ask the service that runs in this environment for its health; exits with 0 or 1
    Healthcheck,
    /// Ask it whether it has what it needs, and for what is away; exits with 0 or 1
    Readyz,
    /// Print its metrics, in the text format of Prometheus
    Metrics,
}

/// The arguments of a service, besides `healthcheck`, `readyz`, `metrics`, `--help` and `--version`.
pub trait Arguments: clap::Args {
    /// Checks that arguments fit together.
    ///
    /// # Errors
    /// A sentence that says why they do not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Serve until the process is told to stop.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct NoArguments {}

impl Arguments for NoArguments {}

/// Reads the command line of service `name`, and runs `work` with its arguments.
///
/// `healthcheck`, `readyz` and `metrics` ask the running service instead, print its answer, and exit with 0 or 1; containers use
/// `healthcheck`. A command line that is not understood exits with 2.
pub fn run_cli<A: Arguments>(name: &'static str, work: impl FnOnce(A) -> ExitCode) -> ExitCode {
    if let Err(error) = libpq::forget_variables() {
        report_on_stderr(&format!(
            "{name}: cannot start without libpq's variables: {error}"
        ));
        return ExitCode::FAILURE;
    }
    let mut command = command::<A>(name);
    let matches = match command.try_get_matches_from_mut(std::env::args_os().skip(1)) {
        Ok(matches) => matches,
        Err(error) => return report_usage(name, &error),
    };
    if let Some(probe) = matches.subcommand_name()
        && Probe::has_subcommand(probe)
    {
        return health::ask_own_service(probe, Env::from_process());
    }
    let arguments = match A::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return report_usage(name, &error),
    };
    match arguments.check() {
        Ok(()) => work(arguments),
        Err(sentence) => report_usage(name, &command.error(ErrorKind::ValueValidation, sentence)),
    }
}

fn command<A: Arguments>(name: &'static str) -> Command {
    // Without the name of the binary: help shows the name of the service, whatever its file is called in an image.
    let command = A::augment_args(Command::new(name).version(env!("CARGO_PKG_VERSION")))
        .no_binary_name(true)
        .args_conflicts_with_subcommands(true);
    Probe::augment_subcommands(command)
}

/// Prints what clap has to say. That may also be the help or the version, which go to standard output and are no fault.
fn report_usage(name: &str, error: &clap::Error) -> ExitCode {
    if let Err(cause) = error.print() {
        report_on_stderr(&format!("{name}: {cause}"));
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_that_all_share_is_sound() {
        command::<NoArguments>("any").debug_assert();
    }
}
