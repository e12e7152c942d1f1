//! How long `cargo build --release` takes.

use std::fs::File;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use tokio::task::spawn_blocking;

use super::NAME;
use crate::bench::Bench;
use crate::command;

/// Of the services, the one with the most dependencies.
const TOUCHED: &str = "crates/create_buy_order/src/lib.rs";

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let target = tempfile::tempdir_in(bench.folder())?;
    let clean = build(target.path()).await?;
    bench
        .figures
        .add(NAME, "cargo build --release, clean", clean, "s");
    File::options()
        .append(true)
        .open(TOUCHED)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("could not touch {TOUCHED}: is this the folder of the repository?"))?;
    let touched = build(target.path()).await?;
    bench.figures.add(
        NAME,
        "cargo build --release, after touching create_buy_order",
        touched,
        "s",
    );
    Ok(())
}

/// In s.
async fn build(target: &Path) -> anyhow::Result<f64> {
    let target = target.to_string_lossy().into_owned();
    let began = Instant::now();
    let build = move || {
        let arguments = ["build", "--release", "--workspace", "--bins"];
        command::output("cargo", &arguments, &[("CARGO_TARGET_DIR", &target)])
    };
    spawn_blocking(build).await??;
    Ok(began.elapsed().as_secs_f64())
}
