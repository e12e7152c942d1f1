//! What a second writer costs the bare server: the lock passes from one to the other with each commit.

use super::{NAME, TURN, counts, mean, turns};
use crate::bench::Bench;
use crate::groups::BATCH;
use crate::pgbench::Work;

/// With as many clients as there are replicas, in turns. As many orders are on their way in all, as with the connections that replicas share.
pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    // Not the one that the service uses, so that nobody relays what pgbench writes.
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
            NAME,
            format!("the lock alone: `pgbench`, {BATCH} orders on their way, {clients} clients"),
            (mean(&rates, clients), "/s"),
            ("1 client, in turns", one),
        );
    }
    Ok(())
}
