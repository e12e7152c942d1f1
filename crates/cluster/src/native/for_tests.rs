//! Servers that the tests of one process, or of a whole test run, share.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::Interrupt;
use crate::servers::Servers;
use crate::shared::SERVERS_VARIABLE;

/// Starts servers, prints their addresses as one line of JSON, and stops them when standard input ends.
///
/// # Errors
/// When a server does not start.
pub async fn servers() -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::armed()?;
    let (closed, mut input_closed) = tokio::sync::mpsc::channel::<()>(1);
    // A plain thread: the runtime would wait at its end for a read that may never return.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(closed);
    });
    let servers = tokio::select! {
        servers = Servers::start_temporary() => servers?,
        _ = input_closed.recv() => return Ok(ExitCode::SUCCESS),
        () = interrupt.wait() => return Ok(ExitCode::SUCCESS),
    };
    println!("{}", serde_json::to_string(&servers.addresses())?);
    tokio::select! {
        _ = input_closed.recv() => {}
        () = interrupt.wait() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts servers, runs a command that finds them in its environment, stops them, and answers the command's exit code.
///
/// # Errors
/// When a server or the command does not start.
pub async fn with_servers(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::armed()?;
    let servers = tokio::select! {
        servers = Servers::start_temporary() => servers?,
        () = interrupt.wait() => return Ok(ExitCode::from(130)),
    };
    let (program, arguments) = command.split_first().context("no command was given")?;
    // Before the command starts: its end is not missed.
    let mut a_child_ended = signal(SignalKind::child())?;
    let mut child = Command::new(program)
        .args(arguments)
        .env(SERVERS_VARIABLE, serde_json::to_string(&servers.addresses())?)
        .spawn()
        .with_context(|| format!("could not start {}", program.display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tokio::select! {
            // It may be one of the servers'.
            _ = a_child_ended.recv() => {}
            () = interrupt.wait() => {
                // A terminal's Ctrl-C reached the command too; a plain SIGTERM reached only us.
                if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    };
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
