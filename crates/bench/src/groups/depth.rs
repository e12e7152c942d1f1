//! Latency of a page by its depth, which is the number of orders above it. On one connection, alternating between the depths.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service};
use reqwest::Client;
use uuid::Uuid;

use crate::bench::Bench;
use crate::commits::wait_until_projected;
use crate::figures::percentile;
use crate::history;

const PAGE_SIZE: u32 = 10;
/// Names and numbers of orders above the page. 0 is the first page, which needs no reference. 10 is the second page, which shows what the
/// look-up of a reference costs.
const DEPTHS: [(&str, i64); 5] = [
    ("0 rows", 0),
    ("10 rows", 10),
    ("10 k rows", 10_000),
    ("1 M rows", 1_000_000),
    ("10 M rows", 10_000_000),
];
const DEPTHS_QUICK: [(&str, i64); 4] = [
    ("0 rows", 0),
    ("10 rows", 10),
    ("10 k rows", 10_000),
    ("100 k rows", 100_000),
];
const ROUNDS: u32 = 2_000;
const ROUNDS_QUICK: u32 = 300;
const WARM_UP_ROUNDS: usize = 50;

struct Depth {
    name: &'static str,
    /// A different page each time, a [`stride`] deeper than the one before.
    references: Vec<Option<Uuid>>,
    latencies_us: Vec<u32>,
}

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.large_cluster().await?;
    let (depths, rounds) = if bench.quick {
        (&DEPTHS_QUICK[..], ROUNDS_QUICK)
    } else {
        (&DEPTHS[..], ROUNDS)
    };
    let deepest = depths.iter().map(|(_, depth)| *depth).max().unwrap_or_default();
    let further = i64::from(rounds) * stride(deepest, rounds) + i64::from(PAGE_SIZE);
    history::fill(&cluster, deepest + further).await?;
    wait_until_projected(&cluster).await?;
    let mut all = Vec::new();
    for (name, depth) in depths {
        all.push(Depth {
            name,
            references: references(&cluster, *depth, rounds).await?,
            latencies_us: Vec::new(),
        });
    }
    in_turns(&cluster, &mut all, rounds).await?;
    bench.end_large_cluster();

    let mut first = None;
    for depth in &mut all {
        let latencies = &mut depth.latencies_us;
        // The first rounds are left out, in which plans are made and blocks of the table are read.
        latencies.drain(..WARM_UP_ROUNDS);
        latencies.sort_unstable();
        let at = |thousandths| Ok::<_, anyhow::Error>(percentile(latencies, thousandths)? / 1000.0);
        let (p50, p99) = (at(500)?, at(990)?);
        let (name, figures) = (depth.name, &mut bench.figures);
        if let Some((first_p50, first_p99)) = first {
            let (other, p50_name, p99_name) =
                ("0 rows, in turns", format!("{name}, p50"), format!("{name}, p99"));
            figures.add_against(p50_name, (p50, "ms"), (other, first_p50));
            figures.add_against(p99_name, (p99, "ms"), (other, first_p99));
        } else {
            first = Some((p50, p99));
            figures.add(format!("{name}, p50"), p50, "ms");
            figures.add(format!("{name}, p99"), p99, "ms");
        }
    }
    Ok(())
}

/// The number of orders between two measured pages. They lie apart, like those of different clients, so that each needs other blocks of the
/// indexes and the table. In total they span a tenth of the depth.
fn stride(depth: i64, pages: u32) -> i64 {
    (depth / 10 / i64::from(pages)).max(1)
}

/// The references of the measured pages: the last orders of the pages before them.
async fn references(cluster: &Cluster, depth: i64, count: u32) -> anyhow::Result<Vec<Option<Uuid>>> {
    if depth == 0 {
        return Ok(vec![None; usize::try_from(count)?]);
    }
    let references: Vec<Uuid> = sqlx::query_scalar(
        "SELECT external_id
           FROM (SELECT external_id, row_number() OVER (ORDER BY id DESC) - 1 AS further
                   FROM buy_order_read_model
                  WHERE client_id = 1
                    AND id <= (SELECT id FROM buy_order_read_model WHERE client_id = 1 ORDER BY id DESC LIMIT 1 OFFSET $1)
                  ORDER BY id DESC LIMIT $2 * $3) AS deeper
          WHERE further % $3 = 0 ORDER BY further",
    )
    .bind(depth - 1)
    .bind(i64::from(count))
    .bind(stride(depth, count))
    .fetch_all(cluster.read_model())
    .await?;
    ensure!(
        references.len() == usize::try_from(count)?,
        "too few orders are {depth} rows deep"
    );
    Ok(references.into_iter().map(Some).collect())
}

async fn in_turns(cluster: &Cluster, depths: &mut [Depth], rounds: u32) -> anyhow::Result<()> {
    let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
    // One request at a time needs one connection.
    let client = Client::builder().no_proxy().pool_max_idle_per_host(1).build()?;
    for round in 0..usize::try_from(rounds)? {
        for depth in &mut *depths {
            let reference = depth.references.get(round).context("no reference")?;
            let url = match reference {
                None => format!("{url}?page_size={PAGE_SIZE}"),
                Some(reference) => format!("{url}?last_reference={reference}&page_size={PAGE_SIZE}"),
            };
            let request = client.get(url).build()?;
            let began = Instant::now();
            let response = client.execute(request).await?.error_for_status()?;
            let body = response.bytes().await?;
            depth
                .latencies_us
                .push(u32::try_from(began.elapsed().as_micros())?);
            ensure!(
                body.windows(ORDER.len()).filter(|part| *part == ORDER).count()
                    == usize::try_from(PAGE_SIZE)?,
                "a page {} deep is not full",
                depth.name
            );
        }
    }
    Ok(())
}

/// Occurs once in each order of a page.
const ORDER: &[u8] = b"\"btc_rate\"";
