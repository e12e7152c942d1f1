//! The gain from more processes of a service: orders, pages and projected orders per second with 1, 2 and 4 of them.

mod drain;
mod lock;
mod scale;
mod turns;

use std::time::Duration;

use cluster::Service;

use crate::bench::{Bench, CONNECTIONS};
use crate::commits::wait_until_projected;
use crate::history;
use crate::wrk::{Ask, Load};
use scale::Scale;
use turns::{TURN, add_figures, turns};

const WARM_UP: Duration = Duration::from_secs(1);
const PAGE_SIZE: u32 = 10;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    // A fresh cluster, because this group empties the read model.
    bench.fresh_cluster().await?;
    measure_load(bench, Service::CreateBuyOrder, "", Ask::NewOrders).await?;
    lock::measure(bench).await?;
    let page = format!("/buy_orders?page_size={PAGE_SIZE}");
    measure_load(bench, Service::FetchBuyOrders, &page, Ask::Get).await?;
    drain::measure(bench).await
}

/// Measures requests per second at full speed. The replicas share the connections.
async fn measure_load(bench: &mut Bench, service: Service, path: &str, ask: Ask) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let load = Load::unpaced(ask, CONNECTIONS, bench.duration().min(TURN));
    let mut scale = Scale::of(&cluster, service);
    let mut rates = Vec::new();
    let warm_up = Load {
        duration: WARM_UP,
        ..load
    };
    if !bench.quick {
        let name = format!("{}, warm-up", service.name());
        bench.load(&name, &(cluster.url(service) + path), load).await?;
        wait_until_projected(&cluster).await?;
        history::vacuum_and_checkpoint(&cluster).await?;
    }
    for replicas in turns(bench) {
        scale.to(*replicas).await?;
        let urls: Vec<String> = scale.urls().iter().map(|url| url.clone() + path).collect();
        let name = format!("{}, {replicas} replicas", service.name());
        if !bench.quick {
            // Fresh processes first connect and get their statements planned.
            bench.load_all(&name, &urls, warm_up).await?;
            wait_until_projected(&cluster).await?;
        }
        let outcome = bench.load_all(&name, &urls, load).await?;
        wait_until_projected(&cluster).await?;
        rates.push((*replicas, outcome.per_second()));
    }
    scale.to(1).await?;
    add_figures(bench, service, &rates);
    Ok(())
}
