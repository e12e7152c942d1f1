//! Servers that the tests of one process or of a whole test run share.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::shutdown::ShutdownSignal;
use crate::servers::Servers;
use crate::shared::SERVERS_VARIABLE;

/// Starts servers, prints their addresses as one line of JSON, and stops them when standard input closes.
///
/// # Errors
/// When a server does not start.
pub async fn servers() -> anyhow::Result<ExitCode> {
    let mut shutdown = ShutdownSignal::listen()?;
    let (closed, mut input_closed) = tokio::sync::mpsc::channel::<()>(1);
    // On a plain thread, because the runtime would wait for a blocking read at shutdown.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(closed);
    });
    let servers = tokio::select! {
        servers = Servers::start_temporary() => servers?,
        _ = input_closed.recv() => return Ok(ExitCode::SUCCESS),
        () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
    };
    println!("{}", serde_json::to_string(&servers.addresses())?);
    tokio::select! {
        _ = input_closed.recv() => {}
        () = shutdown.wait() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts servers, runs a command with their addresses in its environment, stops them, and returns the command's exit code.
///
/// # Errors
/// When a server or the command does not start.
pub async fn with_servers(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut shutdown = ShutdownSignal::listen()?;
    let servers = tokio::select! {
        servers = Servers::start_temporary() => servers?,
        () = shutdown.wait() => return Ok(ExitCode::from(130)),
    };
    let (program, arguments) = command.split_first().context("no command was given")?;
    // Before the command starts, so that its end is not missed.
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
            // It may be a process of a server.
            _ = a_child_ended.recv() => {}
            () = shutdown.wait() => {
                // Ctrl-C in a terminal also signals the command, but SIGTERM only this process.
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
