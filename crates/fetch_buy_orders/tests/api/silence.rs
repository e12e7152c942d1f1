//! Connections whose packets are dropped, as by a firewall or load balancer that has forgotten them.

use std::time::{Duration, Instant};

use cluster::{Cluster, Link, Options, Service};
use futures_util::future::join_all;

use crate::support::get;

const REQUESTS: usize = 24;

/// The limit after any outage (docs/RELIABILITY.md).
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// How many of concurrent requests were served.
async fn served(cluster: &Cluster) -> anyhow::Result<usize> {
    let asked = (0..REQUESTS).map(|size| async move {
        // Different page sizes, because equal requests may share a query.
        let answer = get(cluster, &format!("/buy_orders?page_size={}", size + 1)).await?;
        anyhow::Ok(answer.status == 200)
    });
    let answers: Vec<bool> = join_all(asked).await.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(answers.into_iter().filter(|served| *served).count())
}

#[tokio::test]
async fn connections_that_fall_silent_for_ever_are_replaced_within_30_s_and_readiness_says_what_requests_see()
-> anyhow::Result<()> {
    let link = Link::FetchBuyOrdersToReadModel;
    let options = Options::only(&[Service::FetchBuyOrders]).with_links(&[link]);
    let cluster = Cluster::start(options).await?;
    assert_eq!(served(&cluster).await?, REQUESTS);

    // Long enough that connections are pinged before their next use.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let silenced = cluster.link(link)?.silence_open();
    assert!(silenced >= 1, "{silenced} connections");
    let since = Instant::now();
    while served(&cluster).await? < REQUESTS {
        assert!(
            since.elapsed() < RECOVERY_LIMIT,
            "not yet after {:?}",
            since.elapsed()
        );
    }
    let ready = cluster
        .http()
        .get(cluster.url(Service::FetchBuyOrders) + "/readyz")
        .send()
        .await?;
    assert_eq!(ready.status(), 200);

    // Now new connections get no answer, either: requests fail, and so does readiness.
    cluster.link(link)?.set(cluster::Traffic::DropBoth);
    cluster::wait_until("it is not ready", RECOVERY_LIMIT, async || {
        let url = cluster.url(Service::FetchBuyOrders) + "/readyz";
        Ok(cluster.http().get(url).send().await?.status() == 503)
    })
    .await
}
