//! What more processes of a service are worth: orders, pages and projected orders a second with 1, 2 and 4 of them.

mod drain;
mod lock;
mod scale;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::Service;

use crate::bench::{Bench, quiet};
use crate::groups::CONNECTIONS;
use crate::history;
use crate::wrk::{Ask, Load};
use scale::Scale;

pub(super) const NAME: &str = "replicas";

/// In an order and then in the reverse, so that a trend of the machine favours none.
const TURNS: [usize; 6] = [1, 2, 4, 4, 2, 1];
const TURNS_QUICK: [usize; 2] = [1, 2];
const TURN: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);
const PAGE_SIZE: u32 = 10;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    // A fresh one: the read model is emptied here.
    bench.fresh_cluster().await?;
    loaded(bench, Service::CreateBuyOrder, "", Ask::NewOrders).await?;
    lock::measure(bench).await?;
    let page = format!("/buy_orders?page_size={PAGE_SIZE}");
    loaded(bench, Service::FetchBuyOrders, &page, Ask::Get).await?;
    drain::measure(bench).await
}

fn turns(bench: &Bench) -> &'static [usize] {
    if bench.quick { &TURNS_QUICK } else { &TURNS }
}

/// As many requests as come back, on as many connections in all, shared among the replicas.
async fn loaded(bench: &mut Bench, service: Service, path: &str, ask: Ask) -> anyhow::Result<()> {
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
        quiet(&cluster).await?;
        history::settle(&cluster).await?;
    }
    for replicas in turns(bench) {
        scale.to(*replicas).await?;
        let urls: Vec<String> = scale.urls().iter().map(|url| url.clone() + path).collect();
        let name = format!("{}, {replicas} replicas", service.name());
        if !bench.quick {
            // Fresh processes connect and have their statements planned first.
            bench.load_all(&name, &urls, warm_up).await?;
            quiet(&cluster).await?;
        }
        let outcome = bench.load_all(&name, &urls, load).await?;
        quiet(&cluster).await?;
        rates.push((*replicas, outcome.per_second()));
    }
    scale.to(1).await?;
    add_figures(bench, service, &rates);
    Ok(())
}

/// With how many there were turns, the fewest first.
fn counts(rates: &[(usize, f64)]) -> BTreeSet<usize> {
    rates.iter().map(|(of, _)| *of).collect()
}

/// The mean of the turns with as many.
fn mean(rates: &[(usize, f64)], many: usize) -> f64 {
    let rates = rates.iter().filter(|(of, _)| *of == many);
    let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), (_, rate)| (sum + rate, count + 1.0));
    sum / count
}

/// The mean of the turns with as many replicas, beside that of one.
fn add_figures(bench: &mut Bench, service: Service, rates: &[(usize, f64)]) {
    let one = mean(rates, 1);
    for replicas in counts(rates) {
        let (name, rate) = (format!("{}, {replicas}", service.name()), mean(rates, replicas));
        match replicas {
            1 => bench.figures.add(NAME, name, rate, "/s"),
            _ => bench
                .figures
                .add_against(NAME, name, (rate, "/s"), ("1 replica, in turns", one)),
        }
    }
}
