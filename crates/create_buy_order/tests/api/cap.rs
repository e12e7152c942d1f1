use cluster::Cluster;
use futures_util::future::try_join_all;
use rust_decimal::Decimal;
use serde_json::json;

use super::batch::put_together;
use super::{
    Answer, assert_one_order, book, buy, new_key, put_json, start_cluster_with_quotes_for, two_processes,
};

/// So short that every order asks for a new rate.
const NO_TIME: &str = "0.000001";

/// At one dollar per BTC, an amount of USD is the same amount of BTC.
async fn start_cluster_at_one_dollar() -> anyhow::Result<Cluster> {
    let cluster = super::start_cluster().await?;
    cluster.prices().set_rate("USD", "1.00");
    Ok(cluster)
}

#[tokio::test]
async fn an_order_over_the_cap_is_refused_whole_and_a_smaller_one_still_fits() -> anyhow::Result<()> {
    let cluster = start_cluster_at_one_dollar().await?;
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
    assert_eq!(book(&cluster).await?.0, 1);
    assert_eq!(buy(&cluster, "USD", "0.50", &new_key()).await?.status, 200);
    assert_eq!(book(&cluster).await?.1, Decimal::ONE_HUNDRED);
    assert_eq!(buy(&cluster, "USD", "0.01", &new_key()).await?.status, 409);
    assert_eq!(buy(&cluster, "USD", "0.51", &refused_key).await?.status, 409);
    Ok(())
}

#[tokio::test]
async fn an_order_beyond_any_amount_of_btc_is_over_the_cap() -> anyhow::Result<()> {
    let cluster = super::start_cluster().await?;
    cluster.prices().set_rate("EUR", "0.00000001");
    assert_eq!(
        buy(&cluster, "EUR", "999999999.99", &new_key()).await?.status,
        409
    );
    Ok(())
}

/// Places one order of each amount, all at once, at the URLs alternately.
async fn buy_at_once(
    cluster: &Cluster,
    urls: &[String],
    currency: &str,
    amounts: &[&str],
) -> anyhow::Result<Vec<Answer>> {
    let http = cluster.http();
    let bodies: Vec<_> = amounts
        .iter()
        .map(|amount| cluster::new_order(currency, amount))
        .collect();
    let sent = bodies.iter().zip(urls.iter().cycle());
    let answers = try_join_all(sent.map(|(body, url)| put_json(&http, url, body))).await?;
    assert!(
        answers.iter().all(|answer| matches!(answer.status, 200 | 409)),
        "{answers:?}"
    );
    Ok(answers)
}

/// The amounts of the accepted orders.
fn accepted<'a>(amounts: &[&'a str], answers: &[Answer]) -> Vec<&'a str> {
    let each = amounts.iter().zip(answers);
    each.filter(|(_, answer)| answer.status == 200)
        .map(|(amount, _)| *amount)
        .collect()
}

#[tokio::test]
async fn two_processes_never_take_the_sum_past_the_cap_and_a_smaller_order_fits_after_a_bigger_was_refused()
-> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for(NO_TIME).await?;
    let urls = two_processes(&cluster).await?;
    cluster.prices().set_rate("USD", "1.00");
    assert_eq!(buy(&cluster, "USD", "99.50", &new_key()).await?.status, 200);

    // There is room for 0.50: one of these fits, and leaves 0.20.
    let bigger = ["0.30"; 60];
    let answers = buy_at_once(&cluster, &urls, "USD", &bigger).await?;
    assert_eq!(accepted(&bigger, &answers), ["0.30"]);
    assert_eq!(book(&cluster).await?.1, Decimal::new(9_980, 2));

    let mixed = ["0.30", "0.02", "0.02"].repeat(20);
    let answers = buy_at_once(&cluster, &urls, "USD", &mixed).await?;
    assert_eq!(accepted(&mixed, &answers), ["0.02"; 10]);
    assert_eq!(book(&cluster).await?.1, Decimal::ONE_HUNDRED);
    Ok(())
}

#[tokio::test]
async fn repeats_of_the_order_that_fills_the_book_are_answered_with_it_though_nothing_fits_any_more()
-> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    cluster.prices().set_rate("USD", "1.00");
    assert_eq!(buy(&cluster, "USD", "0.01", &new_key()).await?.status, 200);
    let all_the_rest = cluster::new_order("USD", "99.99");
    let answers = put_together(&cluster, &urls, &vec![all_the_rest; 4]).await?;
    assert_one_order(&answers);
    assert_eq!(book(&cluster).await?.1, Decimal::ONE_HUNDRED);
    Ok(())
}

#[tokio::test]
async fn a_repeat_takes_no_room_from_the_new_orders_beside_it() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    cluster.prices().set_rate("USD", "1.00");
    assert_eq!(buy(&cluster, "USD", "38.00", &new_key()).await?.status, 200);
    // Each process first gets an order of its own, then the shared one and four of its own. All fit if the shared one counts once.
    let order = |amount: &str| cluster::new_order("USD", amount);
    let mut bodies = vec![order("1.00"), order("1.00")];
    bodies.extend(vec![order("20.00"); 2]);
    bodies.extend((0..8).map(|_| order("5.00")));
    let answers = put_together(&cluster, &urls, &bodies).await?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.replayed).count(), 1);
    assert_eq!(book(&cluster).await?.1, Decimal::ONE_HUNDRED);
    Ok(())
}

#[tokio::test]
async fn two_processes_sell_the_last_free_satoshis_once() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for(NO_TIME).await?;
    let urls = two_processes(&cluster).await?;
    cluster.prices().set_rate("USD", "1.00");
    assert_eq!(buy(&cluster, "USD", "99.99", &new_key()).await?.status, 200);
    cluster.prices().set_rate("EUR", "41191.91");
    let nearly = buy(&cluster, "EUR", "411.91", &new_key()).await?;
    assert_eq!((nearly.status, nearly.order("btc_amount")), (200, "0.00999978"));

    // 22 satoshis are free. A penny buys five at 200,000 GBP per BTC, and one at a million.
    let cents = ["0.01"; 60];
    cluster.prices().set_rate("GBP", "200000.00");
    let answers = buy_at_once(&cluster, &urls, "GBP", &cents).await?;
    assert_eq!(accepted(&cents, &answers).len(), 4, "20 satoshis are sold");
    cluster.prices().set_rate("GBP", "1000000.00");
    let answers = buy_at_once(&cluster, &urls, "GBP", &cents).await?;
    assert_eq!(
        accepted(&cents, &answers).len(),
        2,
        "a smaller order still fits, until the last satoshi"
    );
    assert_eq!(book(&cluster).await?.1, Decimal::ONE_HUNDRED);
    Ok(())
}
