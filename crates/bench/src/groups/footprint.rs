//! The footprint of the services: time to start, memory, size on disk, and time to build.

mod builds;
mod memory;
mod sizes;
mod start;

use crate::bench::Bench;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    bench.fresh_cluster().await?;
    memory::measure(bench).await?;
    start::measure(bench).await?;
    bench.end_clusters();
    sizes::measure(bench).await?;
    // Builds take minutes and do not show whether the services work.
    if !bench.quick {
        builds::measure(bench).await?;
    }
    Ok(())
}
