//! Resident memory, idle and after load.

use std::time::Duration;

use cluster::{Cluster, Service};

use crate::bench::{Bench, CONNECTIONS};
use crate::commits::wait_until_projected;
use crate::figures::megabytes;
use crate::wrk::{Ask, Load};

/// Wait after a start or a load, until memory no longer changes.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
const SETTLED_AFTER_QUICK: Duration = Duration::from_millis(200);

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    restart(&cluster).await?;
    add_figures(bench, &cluster, "idle").await?;
    let loads = [
        (Service::CreateBuyOrder, "", Ask::NewOrders),
        (Service::FetchBuyOrders, "/buy_orders?page_size=100", Ask::Get),
        (Service::BtcPrice, "/buy?currency=USD", Ask::Get),
    ];
    for (service, path, ask) in loads {
        let load = Load::unpaced(ask, CONNECTIONS, bench.duration());
        let name = format!("memory, {}", service.name());
        bench.load(&name, &(cluster.url(service) + path), load).await?;
    }
    wait_until_projected(&cluster).await?;
    add_figures(bench, &cluster, "after the load").await
}

/// Restarts all services, so that they have done nothing yet.
async fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    for service in Service::OF_ORDERS {
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
    }
    Ok(())
}

async fn add_figures(bench: &mut Bench, cluster: &Cluster, when: &str) -> anyhow::Result<()> {
    let settled_after = if bench.quick {
        SETTLED_AFTER_QUICK
    } else {
        SETTLED_AFTER
    };
    tokio::time::sleep(settled_after).await;
    let mut sum = 0;
    for service in Service::OF_ORDERS {
        let bytes = cluster.vitals(service)?.resident_bytes;
        sum += bytes;
        let name = format!("memory of {}, {when}", service.name());
        bench.figures.add(name, megabytes(bytes), "MB");
    }
    let name = format!("memory of all services, {when}");
    bench.figures.add(name, megabytes(sum), "MB");
    Ok(())
}
