//! What the services take: time to start, memory, disk, and time to build.

mod builds;
mod memory;
mod sizes;
mod start;

use crate::bench::Bench;

pub(super) const NAME: &str = "footprint";

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    bench.fresh_cluster().await?;
    memory::measure(bench).await?;
    start::measure(bench).await?;
    bench.end_clusters();
    sizes::measure(bench).await?;
    // Minutes, for figures that say nothing on whether the services work.
    if !bench.quick {
        builds::measure(bench).await?;
    }
    Ok(())
}

/// Bytes as megabytes.
#[expect(clippy::cast_precision_loss, reason = "nothing of ours has 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
