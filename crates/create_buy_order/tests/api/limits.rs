//! `ORDER_MIN_BTC`, `ORDER_MAX_BTC` and `ORDER_MAX_BTC_PER_CLIENT`.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use rust_decimal::Decimal;
use serde_json::json;

use super::turns::Clients;
use super::{book, buy, metrics, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(30);

/// So short that every order asks for a new rate.
const NO_TIME: &str = "0.000001";

fn limited_options(min: &str, max: &str, quotes_for: &str) -> Options {
    let create = Service::CreateBuyOrder;
    Options::only(&[Service::BtcPrice, create])
        .with_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", quotes_for)
        .with_env(create, "ORDER_MIN_BTC", min)
        .with_env(create, "ORDER_MAX_BTC", max)
}

async fn start_limited(min: &str, max: &str, quotes_for: &str) -> anyhow::Result<Cluster> {
    Cluster::start(limited_options(min, max, quotes_for)).await
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
    let variables = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    let all = variables(&["ORDER_MIN_BTC", "ORDER_MAX_BTC", "ORDER_MAX_BTC_PER_CLIENT"]);
    assert_eq!(not_limited(&start_cluster().await?).await?, all);
    let max_only = start_limited("", "2", "2").await?;
    let others = variables(&["ORDER_MIN_BTC", "ORDER_MAX_BTC_PER_CLIENT"]);
    assert_eq!(not_limited(&max_only).await?, others);
    let limited = limited_options("0.5", "2", "2");
    let limited = limited.with_env(Service::CreateBuyOrder, "ORDER_MAX_BTC_PER_CLIENT", "10");
    assert_eq!(
        not_limited(&Cluster::start(limited).await?).await?,
        BTreeSet::new()
    );
    Ok(())
}

#[tokio::test]
async fn a_client_gets_no_more_of_the_book_than_its_limit_and_other_clients_get_theirs() -> anyhow::Result<()>
{
    let create = Service::CreateBuyOrder;
    let limited = Options::only(&[Service::BtcPrice, create])
        .with_tokens()
        .with_env(create, "ORDER_MAX_BTC_PER_CLIENT", "10");
    let cluster = Cluster::start(limited).await?;
    cluster.prices().set_rate("USD", "1.00");
    let clients = Clients::of(cluster).await?;
    assert_eq!(clients.buy(0, "9.98").await?.status, 200);
    let refused = clients.buy(0, "0.02").await?;
    assert_eq!(
        (refused.status, refused.body),
        (
            409,
            json!({"detail": "the order would take what the client has in the book past 10.00000000 BTC"})
        )
    );
    let last = clients.buy(0, "0.01").await?;
    assert_eq!(last.status, 200);
    assert_eq!(clients.buy(1, "10.00").await?.status, 200);

    // What is voided is no longer in the book.
    let cluster = &clients.cluster;
    assert_eq!(cluster.void(last.order("id"), "too many").await?.code, Some(0));
    assert_eq!(clients.buy(0, "0.01").await?.status, 200);
    assert_eq!(clients.buy(0, "0.01").await?.status, 409);
    let shown = metrics(&cluster.http(), &cluster.url(create)).await?;
    let counted = "buy_orders_refused_total{reason=\"over_client_limit\"} 2".to_owned();
    assert!(shown.contains(&counted), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn orders_from_before_there_was_a_limit_are_counted_at_the_start() -> anyhow::Result<()> {
    let create = Service::CreateBuyOrder;
    let cluster = Cluster::start(Options::only(&[Service::BtcPrice, create])).await?;
    cluster.prices().set_rate("USD", "1.00");
    assert_eq!(buy(&cluster, "USD", "9.00", &new_key()).await?.status, 200);
    // More than one step counts.
    sqlx::raw_sql(
        "SET session_replication_role = replica;
         INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
         SELECT gen_random_uuid(), 1, 1, 1, gen_random_uuid(), 1, 0.00000001 FROM generate_series(1, 100000);
         UPDATE buy_order_running_total SET btc_amount = btc_amount + 0.001;
         SET session_replication_role = origin",
    )
    .execute(cluster.write_model())
    .await?;
    cluster.stop(create).await?;
    cluster.set_env(create, "ORDER_MAX_BTC_PER_CLIENT", "10");
    cluster.start_service(create).await?;
    let (counted, all): (Decimal, bool) = sqlx::query_as(
        "SELECT client_running_total.btc_amount, counted_to = (SELECT max(id) FROM buy_order)
           FROM client_running_total, buy_order_running_total",
    )
    .fetch_one(cluster.write_model())
    .await?;
    assert_eq!((counted, all), ("9.001".parse()?, true));
    assert_eq!(buy(&cluster, "USD", "1.00", &new_key()).await?.status, 409);
    assert_eq!(buy(&cluster, "USD", "0.99", &new_key()).await?.status, 200);
    Ok(())
}
