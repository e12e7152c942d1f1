//! Orders that arrive together are written together. Ids, commits and times have the same order.

use std::collections::HashSet;
use std::time::Duration;

use cluster::{Cluster, blocked_sessions, lock_running_total, wait_until};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::{Answer, buy, new_key, put_json, start_cluster_with_quotes_for, two_processes};

const LIMIT: Duration = Duration::from_secs(30);

const ORDERS: usize = 50;

/// Each of two processes writes one order, and then all that wait.
const TRANSACTIONS: usize = 4;

/// The number of orders that wait for the writers of these processes.
pub(crate) async fn drafts_that_wait(cluster: &Cluster, urls: &[String]) -> anyhow::Result<usize> {
    let mut drafts = 0;
    for url in urls {
        let metrics = super::metrics(&cluster.http(), url).await?;
        let waiting = metrics
            .iter()
            .filter_map(|line| line.strip_prefix("order_drafts_waiting "));
        drafts += waiting
            .map(|drafts| drafts.parse::<usize>())
            .sum::<Result<usize, _>>()?;
    }
    Ok(drafts)
}

/// The sessions of the writers that wait for the lock.
pub(crate) async fn sessions_of_waiting_writers(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    Ok(blocked_sessions(cluster.write_model(), "FROM accept_orders(").await?)
}

/// The number of writers that wait for the lock.
pub(crate) async fn writers_that_wait(cluster: &Cluster) -> anyhow::Result<usize> {
    Ok(sessions_of_waiting_writers(cluster).await?.len())
}

/// Sends the requests to two processes alternately. No order is written before all wait: the first order of each process waits for the lock,
/// and the others wait for that one.
pub(crate) async fn put_together(
    cluster: &Cluster,
    urls: &[String],
    bodies: &[Value],
) -> anyhow::Result<Vec<Answer>> {
    let lock = lock_running_total(cluster.write_model()).await?;
    let http = cluster.http();
    let put = |bodies: &[Value]| {
        let sent: Vec<_> = bodies.iter().cloned().zip(urls.iter().cycle()).collect();
        try_join_all(sent.into_iter().map(|(body, url)| {
            let http = http.clone();
            async move { put_json(&http, url, &body).await }
        }))
    };
    let wait = async |orders: usize| {
        wait_until("every order waits for a writer", LIMIT, async || {
            Ok(drafts_that_wait(cluster, urls).await? == orders && writers_that_wait(cluster).await? == 2)
        })
        .await
    };
    let (first, others) = bodies.split_at(2);
    let others = async {
        wait(2).await?;
        let release = async {
            wait(bodies.len()).await?;
            Ok(lock.rollback().await?)
        };
        let (answers, ()) = tokio::try_join!(put(others), release)?;
        Ok(answers)
    };
    let (mut answers, others) = tokio::try_join!(put(first), others)?;
    answers.extend(others);
    Ok(answers)
}

#[tokio::test]
async fn orders_that_arrive_together_are_written_together_and_ids_ascend_with_commits_and_time()
-> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    // From now on the price is cached.
    buy(&cluster, "USD", "1", &new_key()).await?;

    let bodies: Vec<_> = (0..ORDERS).map(|_| cluster::new_order("USD", "0.01")).collect();
    let answers = put_together(&cluster, &urls, &bodies).await?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");

    let rows: Vec<(i64, time::OffsetDateTime, String)> =
        sqlx::query_as("SELECT id, created_at, xmin::text FROM buy_order ORDER BY id OFFSET 1")
            .fetch_all(cluster.write_model())
            .await?;
    assert_eq!(rows.len(), ORDERS);
    let transactions: HashSet<&str> = rows.iter().map(|(.., xmin)| xmin.as_str()).collect();
    assert_eq!(transactions.len(), TRANSACTIONS, "{rows:?}");
    let changes = rows.windows(2).filter(|pair| pair[0].2 != pair[1].2).count();
    assert_eq!(
        changes + 1,
        transactions.len(),
        "the ids of a transaction are in a row: {rows:?}"
    );
    assert!(rows.windows(2).all(|pair| pair[0].1 < pair[1].1), "{rows:?}");
    Ok(())
}
