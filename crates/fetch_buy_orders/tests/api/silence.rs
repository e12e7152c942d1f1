//! Connections that die without a word, as behind a firewall or load balancer that has forgotten them.

use std::time::{Duration, Instant};

use cluster::{Cluster, Link, Options, Service};
use futures_util::future::join_all;

use crate::support::get;

const AT_ONCE: usize = 24;

/// What is promised after any outage (docs/RELIABILITY.md).
const PROMISED: Duration = Duration::from_secs(30);

/// How many of the requests were served.
async fn served(cluster: &Cluster) -> anyhow::Result<usize> {
    let asked = (0..AT_ONCE).map(|size| async move {
        // Equal requests are answered by one query: these differ.
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
    assert_eq!(served(&cluster).await?, AT_ONCE);

    // Old enough to be asked for a sign of life before they are used again.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let silenced = cluster.link(link)?.silence_open();
    assert!(silenced >= 1, "{silenced} connections");
    let since = Instant::now();
    while served(&cluster).await? < AT_ONCE {
        assert!(since.elapsed() < PROMISED, "not yet after {:?}", since.elapsed());
    }
    let ready = cluster
        .http()
        .get(cluster.url(Service::FetchBuyOrders) + "/readyz")
        .send()
        .await?;
    assert_eq!(ready.status(), 200);

    // Now new ones are silent, too: requests fail, and it says so.
    cluster.link(link)?.set(cluster::Traffic::DropBoth);
    cluster::wait_until("it is not ready", PROMISED, async || {
        let url = cluster.url(Service::FetchBuyOrders) + "/readyz";
        Ok(cluster.http().get(url).send().await?.status() == 503)
    })
    .await
}
