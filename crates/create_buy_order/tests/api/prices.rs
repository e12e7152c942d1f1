use std::time::Duration;

use cluster::{Behaviour, Cluster, Options, Service, wait_until};
use futures_util::future::try_join_all;

use super::{buy, count, new_key};

#[tokio::test]
async fn no_price_is_503_and_no_order_until_there_is_one_again() -> anyhow::Result<()> {
    let options = Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]).with_env(
        Service::BtcPrice,
        "QUOTE_MAX_AGE_S",
        "0.001",
    );
    let cluster = Cluster::start(options).await?;
    let key = new_key();
    for behaviour in [
        Behaviour::Status(500),
        Behaviour::WrongCurrency,
        Behaviour::Amount("0".to_owned()),
        Behaviour::Html,
    ] {
        cluster.prices().answer_with(behaviour.clone());
        let refused = buy(&cluster, "USD", "10", &key).await?;
        assert_eq!(
            (refused.status, refused.retry_after.is_some()),
            (503, true),
            "{behaviour:?}"
        );
        assert_eq!(
            refused.body["detail"],
            "no recent price is available, try again shortly"
        );
    }
    assert_eq!(count(&cluster, "buy_order").await?, 0);
    cluster.prices().answer_with(Behaviour::Rates);
    wait_until("the order is accepted", Duration::from_secs(30), async || {
        Ok(buy(&cluster, "USD", "10", &key).await?.status == 200)
    })
    .await?;
    assert_eq!(count(&cluster, "buy_order").await?, 1);
    Ok(())
}

#[tokio::test]
async fn fifty_concurrent_orders_ask_coinbase_once() -> anyhow::Result<()> {
    let options = Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]).with_env(
        Service::BtcPrice,
        "QUOTE_MAX_AGE_S",
        "60",
    );
    let cluster = Cluster::start(options).await?;
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
