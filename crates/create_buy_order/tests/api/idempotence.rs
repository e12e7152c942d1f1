use cluster::{Cluster, Options, Service, wait_until};
use futures_util::future::try_join_all;
use rust_decimal::Decimal;
use serde_json::json;

use super::batch::put_past_the_look_up;
use super::{
    assert_one_order, buy, count, new_key, order_desk, order_desk_with_quotes_for, put_json, total,
    two_processes,
};

#[tokio::test]
async fn two_hundred_concurrent_repeats_make_one_order_and_199_are_marked_replayed() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
    let key = new_key();
    let answers = try_join_all((0..200).map(|_| buy(&cluster, "USD", "10.50", &key))).await?;
    assert_one_order(&answers);
    for table in ["buy_order", "buy_order_idempotence_cache"] {
        assert_eq!(count(&cluster, table).await?, 1, "{table}");
    }
    Ok(())
}

#[tokio::test]
async fn repeats_to_two_processes_at_once_make_one_order() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
    let urls = two_processes(&cluster).await?;
    for _ in 0..20 {
        let body = serde_json::json!({ "currency": "EUR", "amount": "3", "idempotence_key": new_key() });
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
    let cluster = order_desk_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    // So that the price is at hand.
    buy(&cluster, "USD", "1", &new_key()).await?;
    let order = |key: &str| json!({ "currency": "USD", "amount": "2", "idempotence_key": key });
    let key = new_key();
    // Each process gets another order first, and three times the same.
    let [mut bodies, repeats] = [vec![order(&new_key()), order(&new_key())], vec![order(&key); 6]];
    bodies.extend(repeats);
    let answers = put_past_the_look_up(&cluster, &urls, &bodies).await?;
    let (others, same) = answers.split_at(2);
    assert!(
        others
            .iter()
            .all(|answer| answer.status == 200 && !answer.replayed),
        "{others:?}"
    );
    assert_one_order(same);
    assert_eq!(count(&cluster, "buy_order").await?, 4);
    let sum: Decimal = sqlx::query_scalar("SELECT sum(btc_amount) FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    assert_eq!(total(&cluster).await?, sum, "what was not written is not counted");
    Ok(())
}

/// How often quotes were asked for, by how the answer was.
async fn answers_of_btc_price(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let url = cluster.url(Service::BtcPrice) + "/metrics";
    let metrics = cluster.http().get(url).send().await?.text().await?;
    let of_quotes = |line: &&str| line.starts_with("http_requests_total{") && line.contains("\"/buy\"");
    Ok(metrics.lines().filter(of_quotes).map(str::to_owned).collect())
}

#[tokio::test]
async fn a_repeat_is_answered_while_btc_price_is_stopped_and_asks_for_no_price() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
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
    let cluster = order_desk().await?;
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
    let cluster = order_desk().await?;
    let keys: Vec<String> = (0..60).map(|_| new_key()).collect();
    for (pause_ms, key) in (0..).zip(&keys) {
        let impatient = tokio::time::timeout(
            std::time::Duration::from_micros(pause_ms * 200),
            buy(&cluster, "USD", "4", key),
        );
        let _ = impatient.await;
    }
    let answers = try_join_all(keys.iter().map(|key| buy(&cluster, "USD", "4", key))).await?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    for table in ["buy_order", "buy_order_idempotence_cache"] {
        assert_eq!(count(&cluster, table).await?, 60, "{table}");
    }
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
        std::time::Duration::from_secs(30),
        async || {
            let page: serde_json::Value = cluster.http().get(&url).send().await?.json().await?;
            Ok(page["rows"] == serde_json::json!([accepted.body["buy_order"]]))
        },
    )
    .await?;
    wait_until(
        "the outbox is empty",
        std::time::Duration::from_secs(30),
        async || Ok(count(&cluster, "outbox").await? == 0),
    )
    .await
}
