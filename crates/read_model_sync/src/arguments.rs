//! The command line of this service.

use std::io::{IsTerminal as _, stdin};

use common::service;

use crate::{dead_letters, verify};

/// Project orders into the read model until the process is stopped; or run one of these commands, and exit.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// An admin command, run instead of projecting.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The admin commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Messages that could never be applied: look at them, send them back, or drop them
    #[command(subcommand)]
    DeadLetters(dead_letters::Task),
    /// Compare the read model with what `create_buy_order checksums` says, read from standard input; exits with 1 where they differ
    Verify(verify::Options),
}

impl service::Arguments for Arguments {
    fn check(&self) -> Result<(), String> {
        match &self.command {
            Some(Command::DeadLetters(dead_letters::Task::Drop { yes: false, .. })) if !stdin().is_terminal() => {
                Err("letters that are dropped are gone for good: confirm with --yes where there is no terminal to ask".to_owned())
            }
            Some(Command::Verify(_)) if stdin().is_terminal() => {
                Err("the checksums of the write model come on standard input: create_buy_order checksums | read_model_sync verify".to_owned())
            }
            _ => Ok(()),
        }
    }
}
