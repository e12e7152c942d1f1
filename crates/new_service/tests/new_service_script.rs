//! The script that people call. It builds the program anew, so it is tested apart from the tests that start it.
#![allow(missing_docs, reason = "tests")]

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

#[test]
fn the_script_runs_the_program() -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/new_service.sh");
    let help = Command::new(script).arg("--help").output()?;
    ensure!(help.status.success(), "{help:?}");
    ensure!(String::from_utf8(help.stdout)?.contains("--like <SERVICE>"));
    Ok(())
}
