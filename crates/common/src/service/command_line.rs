//! The command line: what all services understand, and what one adds to it.

use std::process::ExitCode;

use clap::Command;
use clap::error::ErrorKind;

use super::{complain, libpq};
use crate::env::Env;
use crate::http::health;

/// What the service that runs in the same environment can be asked, and about what.
const QUESTIONS: [(&str, &str); 3] = [
    (
        "healthcheck",
        "Ask the service that runs in this environment for its health; exits with 0 or 1",
    ),
    (
        "readyz",
        "Ask it whether it has what it needs, and for what is away; exits with 0 or 1",
    ),
    ("metrics", "Print its metrics, in the text format of Prometheus"),
];

/// What a service understands beside `healthcheck`, `readyz`, `metrics`, `--help` and `--version`.
pub trait Arguments: clap::Args {
    /// Whether arguments that are each right fit together.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Serve until the process is told to stop.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct NoArguments {}

impl Arguments for NoArguments {}

/// Reads the command line of service `name` and does what it says.
///
/// `healthcheck` asks the running service for its health, and exits with 0 or 1; containers use it. `readyz` and `metrics` ask it in the same
/// way, and print the answer. What nobody understands exits with 2.
pub fn obey<A: Arguments>(name: &'static str, task: impl FnOnce(A) -> ExitCode) -> ExitCode {
    if let Err(error) = libpq::forget_variables() {
        complain(&format!(
            "{name}: cannot start without libpq's variables: {error}"
        ));
        return ExitCode::FAILURE;
    }
    let mut command = command::<A>(name);
    let understood = command
        .try_get_matches_from_mut(std::env::args_os().skip(1))
        .and_then(|matches| {
            let asked = QUESTIONS
                .iter()
                .find(|(question, _)| matches.subcommand_name() == Some(question));
            if let Some((question, _)) = asked {
                return Ok(Wanted::Answer(question));
            }
            let arguments = A::from_arg_matches(&matches)?;
            match arguments.check() {
                Ok(()) => Ok(Wanted::Task(arguments)),
                Err(sentence) => Err(command.error(ErrorKind::ValueValidation, sentence)),
            }
        });
    match understood {
        Ok(Wanted::Task(arguments)) => task(arguments),
        Ok(Wanted::Answer(question)) => health::ask_own_service(question, Env::from_process()),
        Err(error) => refuse(name, &error),
    }
}

/// What a command line asks for.
enum Wanted<A> {
    /// One of [`QUESTIONS`].
    Answer(&'static str),
    Task(A),
}

fn command<A: Arguments>(name: &'static str) -> Command {
    let questions = QUESTIONS.map(|(question, about)| Command::new(question).about(about));
    // Without the binary's own name: help calls the service by its name, whatever its file is called in an image.
    A::augment_args(Command::new(name).version(env!("CARGO_PKG_VERSION")))
        .no_binary_name(true)
        .args_conflicts_with_subcommands(true)
        .subcommands(questions)
}

/// What was asked for may also be the help or the version: those go to standard output, and are no fault.
fn refuse(name: &str, error: &clap::Error) -> ExitCode {
    if let Err(cause) = error.print() {
        complain(&format!("{name}: {cause}"));
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
