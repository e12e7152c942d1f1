//! The command line of this service.

use common::service;

use crate::{checksums, republish, void};

/// Accept orders and relay them to the queue until the process is told to stop, or run one of these commands and exit.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The command to run instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands for operators.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take an order out of the book: its BTC are free again, and no page shows it. It cannot be undone
    Void(void::Options),
    /// Publish orders again, for a read model that was emptied or lost; orders that it still has are kept
    Republish(republish::Options),
    /// Print one JSON line for each range of orders, to be piped into `read_model_sync verify`
    Checksums(checksums::Options),
}

impl service::Arguments for Arguments {
    fn check(&self) -> Result<(), String> {
        match &self.command {
            Some(Command::Republish(republish::Options {
                from_id: Some(from),
                to_id: Some(to),
                ..
            })) if from > to => Err(format!("--from-id {from} is greater than --to-id {to}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use common::service::Arguments as _;

    use super::*;

    fn read(arguments: &str) -> Result<Arguments, String> {
        let command = Arguments::augment_args(clap::Command::new("create_buy_order"));
        let given = ["create_buy_order"].into_iter().chain(arguments.split(' '));
        let matches = command
            .try_get_matches_from(given)
            .map_err(|error| error.to_string())?;
        let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        arguments.check().map(|()| arguments)
    }

    #[test]
    fn ranges_that_make_sense_are_taken_and_others_are_not() {
        for right in [
            "republish",
            "republish --from-id 1 --to-id 1",
            "republish --from-id 5",
            "republish --to-id 5 --rate 1",
            "republish --since 2026-11-23T15:37:32Z",
            "republish --since 2026-11-23T15:37:32.5+01:00 --rate 100000",
            "void --id 3b14efb6-041f-4d31-b35a-37c82333af36 --reason error",
            "checksums",
            "checksums --range-size 1",
        ] {
            read(right).unwrap();
        }
        for (wrong, why) in [
            (
                "republish --from-id 2 --to-id 1",
                "--from-id 2 is greater than --to-id 1",
            ),
            ("republish --from-id 0", "0 is not in 1.."),
            ("republish --to-id one", "invalid digit"),
            ("republish --to-id 9223372036854775808", "too large"),
            ("republish --since yesterday", "no time in RFC 3339"),
            ("republish --since 2026-11-23T15:37:32", "no time in RFC 3339"),
            (
                "republish --since 2026-11-23T15:37:32Z --to-id 9",
                "cannot be used with",
            ),
            ("republish --rate 0", "0 is not in 1..=100000"),
            ("republish everything", "unexpected argument"),
            ("checksums --range-size 0", "0 is not in 1..=100000"),
            ("void --reason error", "--id <ORDER_ID>"),
            ("void --id 7 --reason error", "invalid length"),
            (
                "void --id 3b14efb6-041f-4d31-b35a-37c82333af36",
                "--reason <TEXT>",
            ),
            (
                "void --id 3b14efb6-041f-4d31-b35a-37c82333af36 --reason \u{1b}[2J",
                "without control characters",
            ),
            (
                "void --id 3b14efb6-041f-4d31-b35a-37c82333af36 --reason \u{a0}",
                "must be one line of 1 to 500 characters",
            ),
            ("checksum", "unrecognized subcommand"),
        ] {
            let said = read(wrong).map(|_| ()).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
