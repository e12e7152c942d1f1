//! Quotes per second from a warm cache, and how often Coinbase is asked meanwhile.

use std::time::Instant;

use anyhow::Context as _;
use cluster::Service;

use crate::bench::{Bench, CONNECTIONS};
use crate::wrk::{Ask, Load};

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let url = cluster.url(Service::BtcPrice) + "/buy?currency=USD";
    cluster.http().get(&url).send().await?.error_for_status()?;
    let load = Load::unpaced(Ask::Get, CONNECTIONS, bench.duration());
    let (asked_before, began) = (cluster.prices().requests(), Instant::now());
    let ours = bench.load("quotes", &url, load).await?;
    let asked = u32::try_from(cluster.prices().requests() - asked_before)?;
    let max_age_s: f64 = cluster
        .environment(Service::BtcPrice)?
        .get("QUOTE_MAX_AGE_S")
        .context("btc_price has no QUOTE_MAX_AGE_S")?
        .parse()?;
    let bound = (began.elapsed().as_secs_f64() / max_age_s).ceil() + 1.0;

    let name = format!("{CONNECTIONS} connections");
    let figures = &mut bench.figures;
    figures.add(name.clone(), ours.per_second(), "/s");
    figures.add(format!("{name}, p99"), ours.p99_us / 1000.0, "ms");
    let other = "the bound of `QUOTE_MAX_AGE_S`";
    figures.add_against("calls to Coinbase", (f64::from(asked), ""), (other, bound));
    if f64::from(asked) > bound {
        bench.fail(format!(
            "quotes: Coinbase was asked {asked} times, more than {bound}"
        ));
    }
    Ok(())
}
