//! How long `cargo build --release` takes.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, ensure};

use crate::bench::Bench;
use crate::command::Running;

/// A file of the service with the most dependencies.
const TOUCHED: &str = "crates/create_buy_order/src/lib.rs";

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let target = tempfile::tempdir_in(bench.folder())?;
    let clean = build(target.path()).await?;
    let name = "cargo build --release";
    bench.figures.add(format!("{name}, clean"), clean, "s");
    File::options()
        .append(true)
        .open(TOUCHED)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("could not touch {TOUCHED}: is this the folder of the repository?"))?;
    let touched = build(target.path()).await?;
    let name = format!("{name}, after touching create_buy_order");
    bench.figures.add(name, touched, "s");
    Ok(())
}

/// Returns the time in s. Cargo prints errors to stderr.
async fn build(target: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut build = Command::new("cargo");
    build
        .args(["build", "--release", "--workspace", "--bins", "--quiet"])
        .env("CARGO_TARGET_DIR", target);
    let mut build = Running::start(&mut build).context("could not run cargo: is it installed?")?;
    let status = build.ended().await?;
    ensure!(status.success(), "cargo build failed ({status})");
    Ok(began.elapsed().as_secs_f64())
}
