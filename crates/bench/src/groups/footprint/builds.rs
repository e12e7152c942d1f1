//! How long `cargo build --release` takes.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};

use super::NAME;
use crate::bench::Bench;

/// Of the services, the one with the most dependencies.
const TOUCHED: &str = "crates/create_buy_order/src/lib.rs";
/// How often a build is looked at.
const EVERY: Duration = Duration::from_millis(20);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let target = tempfile::tempdir_in(bench.folder())?;
    let clean = build(target.path()).await?;
    let name = "cargo build --release";
    bench.figures.add(NAME, format!("{name}, clean"), clean, "s");
    File::options()
        .append(true)
        .open(TOUCHED)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("could not touch {TOUCHED}: is this the folder of the repository?"))?;
    let touched = build(target.path()).await?;
    let name = format!("{name}, after touching create_buy_order");
    bench.figures.add(NAME, name, touched, "s");
    Ok(())
}

/// A build that is under way; ended when dropped.
struct Build(Child);

impl Drop for Build {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In s. What fails is told on stderr.
async fn build(target: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let child = Command::new("cargo")
        .args(["build", "--release", "--workspace", "--bins", "--quiet"])
        .env("CARGO_TARGET_DIR", target)
        .spawn();
    let mut build = Build(child.context("could not run cargo: is it installed?")?);
    loop {
        if let Some(status) = build.0.try_wait()? {
            ensure!(status.success(), "cargo build failed ({status})");
            return Ok(began.elapsed().as_secs_f64());
        }
        tokio::time::sleep(EVERY).await;
    }
}
