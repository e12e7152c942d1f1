use std::time::Duration;

use cluster::{Cluster, Link, Options, Service, Traffic, lock_running_total, wait_until};
use futures_util::future::try_join_all;

use super::batch::{put_together, sessions_of_waiting_writers};
use super::broker::{channel, ready};
use super::{
    assert_one_order, book, buy, count, new_key, put_json, start_cluster, start_cluster_with_quotes_for,
    two_processes,
};

#[tokio::test]
async fn two_hundred_concurrent_repeats_make_one_order_and_199_are_marked_replayed() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let key = new_key();
    let answers = try_join_all((0..200).map(|_| buy(&cluster, "USD", "10.50", &key))).await?;
    assert_one_order(&answers);
    assert_eq!(book(&cluster).await?.0, 1);
    Ok(())
}

#[tokio::test]
async fn repeats_to_two_processes_at_once_make_one_order() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let urls = two_processes(&cluster).await?;
    for _ in 0..20 {
        let body = cluster::new_order("EUR", "3");
        let http = cluster.http();
        let answers = try_join_all((0..10).map(|n| put_json(&http, &urls[n % 2], &body))).await?;
        assert_one_order(&answers);
    }
    assert_eq!(count(&cluster, "buy_order").await?, 20);
    Ok(())
}

#[tokio::test]
async fn a_repeat_that_was_looked_up_before_its_order_was_written_is_found_when_it_is_its_turn()
-> anyhow::Result<()> {
    // No quote is ever at hand, so each request is looked up.
    let cluster = start_cluster_with_quotes_for("0.000001").await?;
    let urls = two_processes(&cluster).await?;
    let order = |key: &str| cluster::order_with_key("USD", "2", key);
    let key = new_key();
    // Each process first gets an order of its own, and then the shared one three times.
    let [mut bodies, repeats] = [vec![order(&new_key()), order(&new_key())], vec![order(&key); 6]];
    bodies.extend(repeats);
    let answers = put_together(&cluster, &urls, &bodies).await?;
    let (others, same) = answers.split_at(2);
    assert!(
        others
            .iter()
            .all(|answer| answer.status == 200 && !answer.replayed),
        "{others:?}"
    );
    assert_one_order(same);
    assert_eq!(
        book(&cluster).await?.0,
        3,
        "and what was not written is not counted"
    );
    Ok(())
}

/// The number of requests for quotes, by status of the answer.
async fn answers_of_btc_price(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut metrics = super::metrics(&cluster.http(), &cluster.url(Service::BtcPrice)).await?;
    metrics.retain(|line| line.starts_with("http_requests_total{") && line.contains("\"/buy\""));
    Ok(metrics)
}

#[tokio::test]
async fn a_repeat_is_answered_while_btc_price_is_stopped_and_asks_for_no_price() -> anyhow::Result<()> {
    // No quote is ever at hand.
    let cluster = start_cluster_with_quotes_for("0.000001").await?;
    let key = new_key();
    let none = answers_of_btc_price(&cluster).await?;
    let first = buy(&cluster, "GBP", "77.70", &key).await?;
    let one = answers_of_btc_price(&cluster).await?;
    assert_ne!(none, one, "a new order asks");
    assert!(buy(&cluster, "GBP", "77.70", &key).await?.replayed);
    assert_eq!(answers_of_btc_price(&cluster).await?, one);
    cluster.stop(Service::BtcPrice).await?;
    let repeat = buy(&cluster, "GBP", "77.7", &key).await?;
    assert_eq!(
        (repeat.status, repeat.replayed, &repeat.body),
        (200, true, &first.body)
    );
    let new = buy(&cluster, "GBP", "77.70", &new_key()).await?;
    assert_eq!((new.status, new.retry_after.is_some()), (503, true));
    Ok(())
}

#[tokio::test]
async fn one_and_one_point_zero_are_one_amount_but_another_amount_currency_or_key_is_another_order()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let key = new_key();
    let first = buy(&cluster, "USD", "1", &key).await?;
    for same in ["1.0", "1.00", "01"] {
        let repeat = buy(&cluster, "USD", same, &key).await?;
        assert_eq!((repeat.replayed, &repeat.body), (true, &first.body), "{same}");
    }
    for (currency, amount, key) in [
        ("USD", "2", key.clone()),
        ("EUR", "1", key.clone()),
        ("USD", "1", new_key()),
    ] {
        let other = buy(&cluster, currency, amount, &key).await?;
        assert_eq!(
            (other.status, other.replayed),
            (200, false),
            "{currency} {amount}"
        );
        assert_ne!(other.order("id"), first.order("id"));
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_whole_order_or_none() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let keys: Vec<String> = (0..60).map(|_| new_key()).collect();
    for (pause_ms, key) in (0..).zip(&keys) {
        let impatient = tokio::time::timeout(
            Duration::from_micros(pause_ms * 200),
            buy(&cluster, "USD", "4", key),
        );
        let _ = impatient.await;
    }
    let answers = try_join_all(keys.iter().map(|key| buy(&cluster, "USD", "4", key))).await?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(book(&cluster).await?.0, 60);
    let idle: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()")
        .fetch_one(cluster.write_model())
        .await?;
    assert_eq!(idle, 0);
    Ok(())
}

#[tokio::test]
async fn an_order_is_one_row_in_the_read_model_with_its_very_amounts() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let accepted = buy(&cluster, "USD", "123.45", &new_key()).await?;
    let url = format!("{}/buy_orders", cluster.url(Service::FetchBuyOrders));
    wait_until(
        "the order is on the first page",
        Duration::from_secs(30),
        async || {
            let page: serde_json::Value = cluster.http().get(&url).send().await?.json().await?;
            Ok(page["rows"] == serde_json::json!([accepted.body["buy_order"]]))
        },
    )
    .await?;
    wait_until("the outbox is empty", Duration::from_secs(30), async || {
        Ok(count(&cluster, "outbox").await? == 0)
    })
    .await
}

/// A cluster whose connections to the write model can fail.
async fn start_cluster_with_a_link() -> anyhow::Result<Cluster> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    Cluster::start(Options::only(&services).with_links(&[Link::CreateBuyOrderToWriteModel])).await
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_after_its_commit_is_answered_as_new_and_is_written_once()
-> anyhow::Result<()> {
    let cluster = start_cluster_with_a_link().await?;
    let link = cluster.link(Link::CreateBuyOrderToWriteModel)?;
    let lock = lock_running_total(cluster.write_model()).await?;
    link.set(Traffic::SwallowCommitAnswer);
    let key = new_key();
    let lose_the_answer = async {
        let mut writers = Vec::new();
        wait_until("the writer waits", Duration::from_secs(30), async || {
            writers = sessions_of_waiting_writers(&cluster).await?;
            Ok(writers.len() == 1)
        })
        .await?;
        // The server has the statement. Its answer will be lost, but not that of the second try.
        link.set(Traffic::Pass);
        lock.rollback().await?;
        anyhow::Ok(writers)
    };
    let (answer, writers) = tokio::try_join!(buy(&cluster, "USD", "5", &key), lose_the_answer)?;
    assert_eq!((answer.status, answer.replayed), (200, false), "{answer:?}");
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)")
        .bind(&writers)
        .fetch_one(cluster.write_model())
        .await?;
    assert_eq!(there, 0, "the answer came over another connection");

    let btc_amount = answer.order("btc_amount").parse()?;
    assert_eq!(book(&cluster).await?, (1, btc_amount));
    let repeat = buy(&cluster, "USD", "5", &key).await?;
    assert_eq!((repeat.replayed, &repeat.body), (true, &answer.body));
    wait_until("the order is relayed", Duration::from_secs(30), async || {
        Ok(count(&cluster, "outbox").await? == 0)
    })
    .await?;
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_order_whose_answers_are_all_lost_is_503_and_its_repeat_is_answered_with_it() -> anyhow::Result<()>
{
    let cluster = start_cluster_with_a_link().await?;
    let link = cluster.link(Link::CreateBuyOrderToWriteModel)?;
    link.set(Traffic::SwallowCommitAnswer);
    let key = new_key();
    let lost = buy(&cluster, "USD", "5", &key).await?;
    assert_eq!((lost.status, lost.retry_after.is_some()), (503, true), "{lost:?}");
    assert_eq!(book(&cluster).await?.0, 1);

    link.set(Traffic::Pass);
    let repeat = buy(&cluster, "USD", "5", &key).await?;
    assert_eq!((repeat.status, repeat.replayed), (200, true), "{repeat:?}");
    assert_eq!(book(&cluster).await?.0, 1);
    Ok(())
}
