use std::time::{Duration, Instant};

use cluster::{Behaviour, Cluster, Options, Service, wait_until};
use futures_util::future::try_join_all;

use super::{Answer, book, buy, count, new_key, start_cluster_with_quotes_for};

const LIMIT: Duration = Duration::from_secs(30);

fn rate_of(answer: &Answer) -> &str {
    answer.body["buy_order"]["btc_rate"].as_str().unwrap_or_default()
}

/// Every answer of Coinbase that is not a price.
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

/// Repeats an order until Coinbase is asked again, because a failure is remembered for a moment. Each try must be refused.
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
async fn one_absurd_price_makes_no_order_and_the_next_good_one_does() -> anyhow::Result<()> {
    let options = Options::only(&[Service::BtcPrice, Service::CreateBuyOrder])
        .with_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", "0.000001")
        .with_env(Service::BtcPrice, "QUOTE_MAX_DEVIATION", "0.5");
    let cluster = Cluster::start(options).await?;
    assert_eq!(buy(&cluster, "USD", "10", &new_key()).await?.status, 200);
    for absurd in ["999999999999", "0.01"] {
        let (key, before) = (new_key(), book(&cluster).await?);
        cluster.prices().set_rate("USD", absurd);
        is_refused_for_want_of_a_price(&cluster, &key).await?;
        assert_eq!(book(&cluster).await?, before, "{absurd}");

        cluster.prices().set_rate("USD", "48478.88");
        wait_until("the order is accepted at the good price", LIMIT, async || {
            let accepted = buy(&cluster, "USD", "10", &key).await?;
            Ok(accepted.status == 200 && rate_of(&accepted) == "48478.88000000")
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn fifty_concurrent_orders_ask_coinbase_once() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
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

#[tokio::test]
async fn with_a_quote_at_hand_orders_are_accepted_without_btc_price() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let first = buy(&cluster, "USD", "10", &new_key()).await?;
    cluster.prices().set_rate("USD", "50000.00");
    cluster.stop(Service::BtcPrice).await?;
    let second = buy(&cluster, "USD", "10", &new_key()).await?;
    assert_eq!(
        (second.status, rate_of(&second)),
        (200, rate_of(&first)),
        "{second:?}"
    );
    // Each currency has a quote of its own.
    assert_eq!(buy(&cluster, "EUR", "10", &new_key()).await?.status, 503);
    // Larger than the book at this rate: known without asking anybody.
    assert_eq!(
        buy(&cluster, "USD", "999999999.99", &new_key()).await?.status,
        409
    );
    Ok(())
}

#[tokio::test]
async fn a_quote_is_reused_no_longer_than_the_maximal_age() -> anyhow::Result<()> {
    const MAX_AGE: Duration = Duration::from_secs(2);
    let cluster = start_cluster_with_quotes_for("2").await?;
    assert_eq!(buy(&cluster, "USD", "10", &new_key()).await?.status, 200);
    let quoted_before = Instant::now();
    cluster.prices().set_rate("USD", "50000.00");
    cluster.stop(Service::BtcPrice).await?;
    tokio::time::sleep_until((quoted_before + MAX_AGE).into()).await;
    let refused = buy(&cluster, "USD", "10", &new_key()).await?;
    assert_eq!(refused.status, 503, "{refused:?}");
    cluster.launch(Service::BtcPrice)?;
    wait_until("an order at the new price", LIMIT, async || {
        let new = buy(&cluster, "USD", "10", &new_key()).await?;
        Ok(new.status == 200 && rate_of(&new) == "50000.00000000")
    })
    .await
}

#[tokio::test]
async fn a_repeat_has_its_own_rate_whatever_the_price_is_now() -> anyhow::Result<()> {
    // Without a quote at hand, and with one.
    for quotes_for in ["0.000001", "1"] {
        let cluster = start_cluster_with_quotes_for(quotes_for).await?;
        let key = new_key();
        let first = buy(&cluster, "EUR", "200", &key).await?;
        // At this rate it would be over the cap.
        cluster.prices().set_rate("EUR", "1.00");
        wait_until("an order at the new price", LIMIT, async || {
            Ok(rate_of(&buy(&cluster, "EUR", "1", &new_key()).await?) == "1.00000000")
        })
        .await?;
        let repeat = buy(&cluster, "EUR", "200.00", &key).await?;
        assert_eq!(
            (repeat.status, repeat.replayed, &repeat.body),
            (200, true, &first.body),
            "{quotes_for}"
        );
    }
    Ok(())
}
