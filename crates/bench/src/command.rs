//! Programs that are run to their end.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// What a program writes to stdout. It waits: not for a thread of the runtime.
///
/// # Errors
/// When it is missing or fails; the message holds what it wrote.
pub fn output<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
    environment: &[(&str, &str)],
) -> anyhow::Result<String> {
    let name = program.as_ref().display().to_string();
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .with_context(|| format!("could not run {name}: is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{name} failed ({}):\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
