//! Quotes from a warm cache, and how often Coinbase is asked meanwhile.

use std::time::{Duration, Instant};

use cluster::Service;

use crate::bench::Bench;
use crate::wrk::{Ask, Load};

pub(super) const NAME: &str = "quotes";

const CONNECTIONS: u32 = 64;
/// `QUOTE_MAX_AGE_S` of the harness.
const QUOTE_MAX_AGE: Duration = Duration::from_secs(2);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let url = cluster.url(Service::BtcPrice) + "/buy?currency=USD";
    cluster.http().get(&url).send().await?.error_for_status()?;
    let load = Load {
        ask: Ask::Get,
        connections: CONNECTIONS,
        duration: bench.duration(),
        rate: None,
    };
    let (asked_before, began) = (cluster.prices().requests(), Instant::now());
    let ours = bench.load(NAME, &url, load).await?;
    let asked = u32::try_from(cluster.prices().requests() - asked_before)?;
    let bound = (began.elapsed().as_secs_f64() / QUOTE_MAX_AGE.as_secs_f64()).ceil() + 1.0;

    let name = format!("{CONNECTIONS} connections");
    let figures = &mut bench.figures;
    figures.add(NAME, name.clone(), ours.per_second(), "/s");
    figures.add(NAME, format!("{name}, p99"), ours.p99_us / 1000.0, "ms");
    let other = "the bound of `QUOTE_MAX_AGE_S`";
    figures.add_against(NAME, "calls to Coinbase", (f64::from(asked), ""), (other, bound));
    if f64::from(asked) > bound {
        bench.fail(format!(
            "quotes: Coinbase was asked {asked} times, more than {bound}"
        ));
    }
    Ok(())
}
