//! The cost of a second writer for the bare server: the lock changes hands with each commit.

use super::turns::{TURN, counts, mean, turns};
use crate::bench::{BATCH, Bench};
use crate::pgbench::Work;

/// Measures in turns with as many clients as replicas. The orders in flight are as many as the connections that the replicas share.
pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    // Another database than that of the service, so that the relay does not publish what pgbench writes.
    let bare = cluster.another_write_model().await?;
    let duration = bench.duration().min(TURN);
    let mut rates: Vec<(usize, f64)> = Vec::new();
    for clients in turns(bench) {
        let count = u32::try_from(*clients)?;
        let orders = BATCH / count;
        let outcome = bench
            .by_pgbench(&bare, Work::Batch { orders }, count, duration)
            .await?;
        rates.push((*clients, outcome.per_second * f64::from(orders)));
    }
    let one = mean(&rates, 1);
    for clients in counts(&rates).into_iter().filter(|clients| *clients > 1) {
        bench.figures.add_against(
            format!("the lock alone: `pgbench`, {BATCH} orders on their way, {clients} clients"),
            (mean(&rates, clients), "/s"),
            ("1 client, in turns", one),
        );
    }
    Ok(())
}
