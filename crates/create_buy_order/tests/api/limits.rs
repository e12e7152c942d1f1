//! `ORDER_MIN_BTC` and `ORDER_MAX_BTC`.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::json;

use super::{book, buy, metrics, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(30);

/// So short that every order asks for a new rate.
const NO_TIME: &str = "0.000001";

async fn start_limited(min: &str, max: &str, quotes_for: &str) -> anyhow::Result<Cluster> {
    let create = Service::CreateBuyOrder;
    let options = Options::only(&[Service::BtcPrice, create])
        .with_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", quotes_for)
        .with_env(create, "ORDER_MIN_BTC", min)
        .with_env(create, "ORDER_MAX_BTC", max);
    Cluster::start(options).await
}

#[tokio::test]
async fn dust_and_an_order_that_fills_the_book_are_refused_and_the_book_stays_open() -> anyhow::Result<()> {
    let cluster = start_limited("0.00001", "0.5", "2").await?;
    for (amount, detail) in [
        (
            "0.01",
            "the order is 0.00000021 BTC at the market rate, and the smallest order is 0.00001000 BTC",
        ),
        (
            "4846637.34",
            "the order is 99.97420197 BTC at the market rate, and the largest order is 0.50000000 BTC",
        ),
    ] {
        let refused = buy(&cluster, "USD", amount, &new_key()).await?;
        assert_eq!((refused.status, refused.body), (409, json!({ "detail": detail })));
    }
    // Larger than any book: refused without a limit, too.
    let refused = buy(&cluster, "USD", "999999999.99", &new_key()).await?;
    assert_eq!(refused.status, 409);
    assert_eq!(book(&cluster).await?.0, 0);
    assert_eq!(buy(&cluster, "USD", "123.45", &new_key()).await?.status, 200);

    let shown = metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await?;
    for reason in ["too_small", "too_large", "over_cap"] {
        let counted = format!("buy_orders_refused_total{{reason=\"{reason}\"}} 1");
        assert!(shown.contains(&counted), "{counted} is not in {shown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_order_at_a_limit_is_accepted_with_and_without_a_quote_at_hand() -> anyhow::Result<()> {
    for quotes_for in [NO_TIME, "60"] {
        let cluster = start_limited("0.5", "2", quotes_for).await?;
        // An amount of USD is the same amount of BTC.
        cluster.prices().set_rate("USD", "1.00");
        let mut orders = 0;
        for (amount, status) in [("0.50", 200), ("0.49", 409), ("2.00", 200), ("2.01", 409)] {
            let answer = buy(&cluster, "USD", amount, &new_key()).await?;
            assert_eq!(answer.status, status, "{amount}, {quotes_for}: {answer:?}");
            orders += i64::from(status == 200);
            assert_eq!(book(&cluster).await?.0, orders);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_repeat_is_answered_with_its_order_though_a_new_one_would_be_beyond_the_limits()
-> anyhow::Result<()> {
    // Without a quote at hand, and with one.
    for quotes_for in [NO_TIME, "1"] {
        let cluster = start_limited("0.5", "2", quotes_for).await?;
        cluster.prices().set_rate("USD", "1.00");
        let key = new_key();
        let first = buy(&cluster, "USD", "1", &key).await?;
        assert_eq!(first.status, 200, "{first:?}");
        for (rate, new) in [("100", "100"), ("0.01", "0.01")] {
            cluster.prices().set_rate("USD", rate);
            wait_until("an order at the new rate", LIMIT, async || {
                Ok(buy(&cluster, "USD", new, &new_key()).await?.status == 200)
            })
            .await?;
            assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 409, "{rate}");
            let repeat = buy(&cluster, "USD", "1.00", &key).await?;
            assert_eq!(
                (repeat.status, repeat.replayed, &repeat.body),
                (200, true, &first.body),
                "{rate}, {quotes_for}"
            );
        }
    }
    Ok(())
}

/// The variables that the warnings of the start name.
async fn not_limited(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    wait_until("the event of the start", LIMIT, async || {
        let events = cluster.logs(Service::CreateBuyOrder);
        let warnings = events
            .iter()
            .filter(|event| event["event"] == "orders_not_limited");
        named = warnings
            .map(|event| event["variable"].as_str().unwrap_or_default().to_owned())
            .collect();
        Ok(events.iter().any(|event| event["event"] == "service_started"))
    })
    .await?;
    Ok(named)
}

#[tokio::test]
async fn each_limit_that_is_not_set_is_named_at_the_start() -> anyhow::Result<()> {
    let both = BTreeSet::from(["ORDER_MIN_BTC", "ORDER_MAX_BTC"].map(str::to_owned));
    assert_eq!(not_limited(&start_cluster().await?).await?, both);
    let max_only = start_limited("", "2", "2").await?;
    assert_eq!(
        not_limited(&max_only).await?,
        BTreeSet::from(["ORDER_MIN_BTC".to_owned()])
    );
    let limited = start_limited("0.5", "2", "2").await?;
    assert_eq!(not_limited(&limited).await?, BTreeSet::new());
    Ok(())
}
