use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{Cluster, Options, Service, lock_running_total, wait_until};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;

use super::batch::{drafts_that_wait, writers_that_wait};
use super::{answer, book, buy, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(30);

/// A client that buys one order after the other, over one connection or over a new one each time, until it gets no answer. Returns the ids
/// of its orders. Every answer must be an order.
async fn buy_until_cut_off(
    http: reqwest::Client,
    url: String,
    connects_anew: bool,
    accepted: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    loop {
        let mut request = http
            .put(format!("{url}/buy_order"))
            .json(&cluster::new_order("USD", "0.01"));
        if connects_anew {
            request = request.header("connection", "close");
        }
        let Ok(response) = request.send().await else {
            return Ok(ids);
        };
        let answer = answer(response).await?;
        ensure!(answer.status == 200, "{answer:?}");
        accepted.fetch_add(1, Ordering::Relaxed);
        ids.push(answer.order("id").to_owned());
    }
}

/// Stops `create_buy_order` while clients buy, and returns the ids in their answers.
async fn stop_under_load(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for client in 0..16 {
        clients.spawn(buy_until_cut_off(
            cluster.http(),
            cluster.url(Service::CreateBuyOrder),
            client % 2 == 0,
            Arc::clone(&accepted),
        ));
    }
    wait_until("the load is under way", LIMIT, async || {
        Ok(accepted.load(Ordering::Relaxed) > 200)
    })
    .await?;
    let asked = Instant::now();
    let status = cluster.stop(Service::CreateBuyOrder).await?;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");
    let last_line = cluster.output(Service::CreateBuyOrder).pop();
    assert_eq!(status.code(), Some(0), "{last_line:?}");
    let answered: anyhow::Result<Vec<Vec<String>>> = clients.join_all().await.into_iter().collect();
    Ok(answered?.into_iter().flatten().collect())
}

async fn written(cluster: &Cluster) -> anyhow::Result<HashSet<String>> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT external_id::text FROM buy_order")
        .fetch_all(cluster.write_model())
        .await?;
    Ok(ids.into_iter().collect())
}

#[tokio::test]
async fn sigterm_under_load_loses_no_accepted_request_and_exits_with_0_within_5_s() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let mut answered = HashSet::new();
    for _ in 0..3 {
        let ids = stop_under_load(&cluster).await?;
        answered.extend(ids);
        // Each request whose order was written got an answer. The failed ones had not been accepted.
        assert_eq!(written(&cluster).await?, answered);
        cluster.start_service(Service::CreateBuyOrder).await?;
    }
    // Messages that the stopped relays left are published after the restart.
    wait_until("everything is projected", 2 * LIMIT, async || {
        let projected: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
            .fetch_one(cluster.read_model())
            .await?;
        Ok(usize::try_from(projected)? == answered.len())
    })
    .await
}

#[tokio::test]
async fn orders_in_hand_when_sigterm_comes_are_written_and_answered() -> anyhow::Result<()> {
    const ORDERS: usize = 20;
    let cluster = start_cluster().await?;
    let lock = lock_running_total(cluster.write_model()).await?;
    let keys: Vec<String> = (0..ORDERS).map(|_| new_key()).collect();
    let orders = try_join_all(keys.iter().map(|key| buy(&cluster, "USD", "0.01", key)));
    let urls = [cluster.url(Service::CreateBuyOrder)];
    let stop = async {
        wait_until("every order waits for the writer", LIMIT, async || {
            Ok(drafts_that_wait(&cluster, &urls).await? == ORDERS && writers_that_wait(&cluster).await? == 1)
        })
        .await?;
        cluster.terminate(Service::CreateBuyOrder)?;
        let url = cluster.url(Service::CreateBuyOrder);
        let address = url.trim_start_matches("http://");
        wait_until("it takes no new connection", LIMIT, async || {
            Ok(tokio::net::TcpStream::connect(address).await.is_err())
        })
        .await?;
        Ok(lock.rollback().await?)
    };
    let (answers, ()) = tokio::try_join!(orders, stop)?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(book(&cluster).await?.0, 20);
    let status = cluster
        .wait_for_end(Service::CreateBuyOrder, Duration::from_secs(5))
        .await?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}
