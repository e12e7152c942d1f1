//! Orders that arrive together are written together, and the order of ids is the order of commits is the order of time.

use std::collections::HashSet;
use std::time::Duration;

use cluster::{Cluster, Service, wait_until};
use futures_util::future::try_join_all;
use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::{buy, new_key, order_desk_with_quotes_for, put_json, two_processes};

const LIMIT: Duration = Duration::from_secs(30);

const ORDERS: usize = 50;

/// Both processes write what came first, and then all the rest; two more for orders that are still on their way from their price to
/// the writer when the lock is released.
const MOST_TRANSACTIONS: usize = 6;

/// How many orders got their price so far: the last that can be seen of an order before it waits for the writer.
pub(crate) fn quotes(cluster: &Cluster) -> usize {
    let logs = cluster.logs(Service::BtcPrice);
    let quoted = |line: &&serde_json::Value| line["event"] == "btc_price_quoted";
    logs.iter().filter(quoted).count()
}

/// Takes the lock that writers wait for, until the transaction ends.
pub(crate) async fn hold_the_writers(cluster: &Cluster) -> anyhow::Result<Transaction<'static, Postgres>> {
    let mut lock = cluster.write_model().begin().await?;
    sqlx::query("SELECT FROM buy_order_running_total FOR UPDATE")
        .execute(&mut *lock)
        .await?;
    Ok(lock)
}

/// How many writers wait for the lock that puts them in a row.
pub(crate) async fn writers_that_wait(cluster: &Cluster) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%buy_order_running_total%'",
    )
    .fetch_one(cluster.write_model())
    .await?)
}

#[tokio::test]
async fn orders_that_arrive_together_are_written_together_and_ids_ascend_with_commits_and_time()
-> anyhow::Result<()> {
    let cluster = order_desk_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    // So that the price is at hand.
    buy(&cluster, "USD", "1", &new_key()).await?;

    let lock = hold_the_writers(&cluster).await?;
    let http = cluster.http();
    let bodies: Vec<_> = (0..ORDERS)
        .map(|_| json!({ "currency": "USD", "amount": "0.01", "idempotence_key": new_key() }))
        .collect();
    let sent = bodies.iter().zip(urls.iter().cycle());
    let orders = try_join_all(sent.map(|(body, url)| put_json(&http, url, body)));
    let release = async {
        wait_until("every order has its price", LIMIT, async || {
            Ok(quotes(&cluster) == 1 + ORDERS && writers_that_wait(&cluster).await? == 2)
        })
        .await?;
        Ok(lock.rollback().await?)
    };
    let (answers, ()) = tokio::try_join!(orders, release)?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");

    let rows: Vec<(i64, time::OffsetDateTime, String)> =
        sqlx::query_as("SELECT id, created_at, xmin::text FROM buy_order ORDER BY id OFFSET 1")
            .fetch_all(cluster.write_model())
            .await?;
    assert_eq!(rows.len(), ORDERS);
    let transactions: HashSet<&str> = rows.iter().map(|(.., xmin)| xmin.as_str()).collect();
    assert!(transactions.len() <= MOST_TRANSACTIONS, "{rows:?}");
    let changes = rows.windows(2).filter(|pair| pair[0].2 != pair[1].2).count();
    assert_eq!(
        changes + 1,
        transactions.len(),
        "the ids of a transaction are in a row: {rows:?}"
    );
    assert!(rows.windows(2).all(|pair| pair[0].1 < pair[1].1), "{rows:?}");
    Ok(())
}
