use cluster::{Cluster, Options, Service};
use futures_util::future::try_join_all;
use rust_decimal::Decimal;
use serde_json::json;

use super::{buy, count, new_key, put_json};

/// With one dollar a BTC, amounts of USD are amounts of BTC, down to a cent.
async fn one_dollar_desk() -> anyhow::Result<Cluster> {
    let cluster = super::order_desk().await?;
    cluster.prices().set_rate("USD", "1.00");
    Ok(cluster)
}

async fn total(cluster: &Cluster) -> anyhow::Result<Decimal> {
    Ok(
        sqlx::query_scalar("SELECT btc_amount FROM buy_order_running_total")
            .fetch_one(cluster.write_model())
            .await?,
    )
}

async fn sum(cluster: &Cluster) -> anyhow::Result<Decimal> {
    Ok(
        sqlx::query_scalar("SELECT coalesce(sum(btc_amount), 0) FROM buy_order")
            .fetch_one(cluster.write_model())
            .await?,
    )
}

#[tokio::test]
async fn an_order_over_the_cap_is_refused_whole_and_a_smaller_one_still_fits() -> anyhow::Result<()> {
    let cluster = one_dollar_desk().await?;
    assert_eq!(buy(&cluster, "USD", "99.50", &new_key()).await?.status, 200);
    let refused_key = new_key();
    let refused = buy(&cluster, "USD", "0.51", &refused_key).await?;
    assert_eq!(
        (refused.status, refused.body),
        (
            409,
            json!({"detail": "the order would take the book past 100 BTC"})
        )
    );
    assert_eq!(count(&cluster, "buy_order").await?, 1);
    assert_eq!(count(&cluster, "buy_order_idempotence_cache").await?, 1);
    assert_eq!(buy(&cluster, "USD", "0.50", &new_key()).await?.status, 200);
    assert_eq!(total(&cluster).await?, Decimal::ONE_HUNDRED);
    assert_eq!(buy(&cluster, "USD", "0.01", &new_key()).await?.status, 409);
    assert_eq!(buy(&cluster, "USD", "0.51", &refused_key).await?.status, 409);
    Ok(())
}

#[tokio::test]
async fn an_order_beyond_any_amount_of_btc_is_over_the_cap() -> anyhow::Result<()> {
    let cluster = super::order_desk().await?;
    cluster.prices().set_rate("EUR", "0.00000001");
    assert_eq!(
        buy(&cluster, "EUR", "999999999.99", &new_key()).await?.status,
        409
    );
    Ok(())
}

#[tokio::test]
async fn two_processes_never_take_the_sum_past_the_cap_around_the_last_free_satoshi() -> anyhow::Result<()> {
    let cluster = Cluster::start(
        Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]).with_env(
            Service::BtcPrice,
            "QUOTE_MAX_AGE_S",
            "0.001",
        ),
    )
    .await?;
    let urls = [
        cluster.url(Service::CreateBuyOrder),
        cluster.start_extra(Service::CreateBuyOrder).await?,
    ];
    let http = cluster.http();
    cluster.prices().set_rate("USD", "1.00");
    let order = |amount: &str| json!({ "currency": "USD", "amount": amount, "idempotence_key": new_key() });
    assert_eq!(put_json(&http, &urls[0], &order("99.50")).await?.status, 200);

    // Room for 0.50: ten of 0.05 fit, or fewer with some of 0.30 among them.
    let bodies: Vec<_> = (0..60)
        .map(|n| order(if n % 3 == 0 { "0.30" } else { "0.05" }))
        .collect();
    let answers = try_join_all(
        bodies
            .iter()
            .enumerate()
            .map(|(n, body)| put_json(&http, &urls[n % 2], body)),
    )
    .await?;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 || answer.status == 409),
        "{answers:?}"
    );
    assert_eq!(total(&cluster).await?, Decimal::ONE_HUNDRED);
    assert_eq!(total(&cluster).await?, sum(&cluster).await?);
    Ok(())
}

#[tokio::test]
async fn the_last_free_satoshi_is_sold_once() -> anyhow::Result<()> {
    let cluster = one_dollar_desk().await?;
    assert_eq!(buy(&cluster, "USD", "99.99", &new_key()).await?.status, 200);
    // 41191.92 fills EUR 411.91 up to 0.00999986; then a cent at 10,000 EUR a BTC is 100 satoshis, at a million one.
    cluster.prices().set_rate("EUR", "41191.91");
    let nearly = buy(&cluster, "EUR", "411.91", &new_key()).await?;
    assert_eq!(nearly.status, 200);
    let free = Decimal::ONE_HUNDRED - total(&cluster).await?;
    assert!(free > Decimal::ZERO && free < Decimal::new(100, 8), "{free}");

    cluster.prices().set_rate("GBP", "1000000.00");
    let answers = try_join_all((0..60).map(|_| {
        let cluster = &cluster;
        async move { buy(cluster, "GBP", "0.01", &new_key()).await }
    }))
    .await?;
    let sold = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(
        Decimal::new(i64::try_from(sold)?, 8),
        free,
        "as many satoshis were sold as were free"
    );
    assert_eq!(total(&cluster).await?, Decimal::ONE_HUNDRED);
    assert_eq!(sum(&cluster).await?, Decimal::ONE_HUNDRED);
    Ok(())
}
