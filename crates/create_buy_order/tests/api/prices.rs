use std::time::Duration;

use cluster::{Behaviour, Cluster, Options, Service, wait_until};
use futures_util::future::try_join_all;

use super::{book, buy, count, new_key, order_desk_with_quotes_for};

const LIMIT: Duration = Duration::from_secs(30);

/// Every way in which Coinbase gives no price.
fn bad_answers() -> Vec<Behaviour> {
    let amount = |text: &str| Behaviour::Amount(text.to_owned());
    vec![
        Behaviour::Hang,
        Behaviour::Status(429),
        Behaviour::Status(500),
        Behaviour::Html,
        Behaviour::WrongBase,
        Behaviour::WrongCurrency,
        amount("0"),
        amount("-48478.88"),
        amount("1e5"),
        amount("NaN"),
        Behaviour::Oversize,
        Behaviour::Redirect,
    ]
}

/// Repeats an order until Coinbase was asked for its price, for a failure is remembered for a moment; it must be refused every time.
async fn is_refused_for_want_of_a_price(cluster: &Cluster, key: &str) -> anyhow::Result<()> {
    let asked_before = cluster.prices().requests();
    wait_until("coinbase is asked anew", LIMIT, async || {
        let refused = buy(cluster, "USD", "10", key).await?;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.retry_after.is_some(), "{refused:?}");
        assert_eq!(
            refused.body["detail"],
            "no recent price is available, try again shortly"
        );
        Ok(cluster.prices().requests() > asked_before)
    })
    .await
}

#[tokio::test]
async fn each_bad_answer_of_coinbase_is_503_and_no_order_until_there_is_a_price_again() -> anyhow::Result<()>
{
    let options = Options::only(&[Service::BtcPrice, Service::CreateBuyOrder])
        .with_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", "0.000001")
        .with_env(Service::BtcPrice, "CB_TIMEOUT_S", "0.5");
    let cluster = Cluster::start(options).await?;
    for (orders_before, behaviour) in (0..).zip(bad_answers()) {
        let key = new_key();
        let before = book(&cluster).await?;
        cluster.prices().answer_with(behaviour.clone());
        is_refused_for_want_of_a_price(&cluster, &key).await?;
        assert_eq!(book(&cluster).await?, before, "{behaviour:?}");

        cluster.prices().answer_with(Behaviour::Rates);
        wait_until("the order is accepted", LIMIT, async || {
            Ok(buy(&cluster, "USD", "10", &key).await?.status == 200)
        })
        .await?;
        assert_eq!(
            count(&cluster, "buy_order").await?,
            orders_before + 1,
            "{behaviour:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn fifty_concurrent_orders_ask_coinbase_once() -> anyhow::Result<()> {
    let cluster = order_desk_with_quotes_for("60").await?;
    let answers = try_join_all((0..50).map(|_| {
        let cluster = &cluster;
        async move { buy(cluster, "USD", "1", &new_key()).await }
    }))
    .await?;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(cluster.prices().requests(), 1);
    assert_eq!(count(&cluster, "buy_order").await?, 50);
    Ok(())
}
