//! `/metrics`: what changes each metric.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::{Behaviour, Cluster, Options, Server, Service, wait_until};
use reqwest::{Method, StatusCode};
use uuid::Uuid;

use super::support::{metrics, shows, value};

async fn put(cluster: &Cluster, amount: &str, key: Uuid) -> anyhow::Result<StatusCode> {
    let order = cluster::order_with_key("USD", amount, key);
    Ok(cluster.put_order(&order).send().await?.status())
}

fn series(shown: &str) -> BTreeSet<&str> {
    let lines = shown.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[tokio::test]
async fn unknown_paths_and_methods_add_no_series() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders])).await?;
    let fetch = Service::FetchBuyOrders;
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes())?;
        let url = cluster.url(fetch) + path;
        cluster.http().request(method, url).send().await?;
        anyhow::Ok(())
    };
    ask("GET", "/first").await?;
    ask("FIRST", "/buy_orders").await?;
    ask("FIRST", "/first").await?;
    metrics(&cluster, fetch).await?; // its own request shows in the next
    let before = metrics(&cluster, fetch).await?;
    for number in 0..40 {
        ask("GET", &format!("/path-{number}?{number}")).await?;
        ask(&format!("METHOD{number}"), "/buy_orders").await?;
        ask(&format!("METHOD{number}"), &format!("/path-{number}")).await?;
    }
    let after = metrics(&cluster, fetch).await?;
    let new: Vec<_> = series(&after).difference(&series(&before)).copied().collect();
    assert!(new.is_empty(), "{new:?}");
    let others = r#"http_requests_total{method="GET",route="other",status="404"}"#;
    assert_eq!(value(&cluster, fetch, others).await?, Some(41.0));
    let strange = r#"http_requests_total{method="other",route="/buy_orders",status="405"}"#;
    assert_eq!(value(&cluster, fetch, strange).await?, Some(41.0));
    Ok(())
}

#[tokio::test]
async fn orders_are_counted_as_created_replayed_or_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let create = Service::CreateBuyOrder;
    let key = Uuid::new_v4();
    assert_eq!(put(&cluster, "484.7888", key).await?, 422);
    assert_eq!(put(&cluster, "48478.88", key).await?, 200);
    assert_eq!(put(&cluster, "48478.88", key).await?, 200);
    assert_eq!(put(&cluster, "99999999", Uuid::new_v4()).await?, 409);
    cluster.prices().answer_with(Behaviour::Status(500));
    // Wait until the cached quote is too old.
    wait_until(
        "orders are refused for want of a price",
        Duration::from_secs(30),
        async || Ok(put(&cluster, "99999999", Uuid::new_v4()).await? == 503),
    )
    .await?;

    for (series, expected) in [
        ("buy_orders_created_total", 1.0),
        ("buy_orders_replayed_total", 1.0),
        (r#"buy_orders_refused_total{reason="invalid"}"#, 1.0),
        (r#"buy_orders_refused_total{reason="no_price"}"#, 1.0),
        ("order_drafts_waiting", 0.0),
        ("http_requests_in_flight", 1.0), // this scrape
        ("service_ready", 1.0),
        (r#"log_events_dropped_total{outlet="stdout"}"#, 0.0),
    ] {
        assert_eq!(value(&cluster, create, series).await?, Some(expected), "{series}");
    }
    let over_cap = r#"buy_orders_refused_total{reason="over_cap"}"#;
    assert!(value(&cluster, create, over_cap).await? >= Some(1.0));
    for histogram in ["order_batch_orders", "order_write_duration_seconds"] {
        let count = value(&cluster, create, &format!("{histogram}_count")).await?;
        assert!(count >= Some(1.0), "{histogram}: {count:?}");
    }
    shows(&cluster, create, "order_book_btc", Some(1.0)).await?;
    shows(&cluster, create, "order_book_left_btc", Some(99.0)).await?;
    shows(
        &cluster,
        create,
        r#"broker_publishes_total{outcome="confirmed"}"#,
        Some(1.0),
    )
    .await?;
    shows(&cluster, create, "outbox_events", Some(0.0)).await?;

    the_rest_of_the_cluster_counted_its_part(&cluster).await
}

async fn the_rest_of_the_cluster_counted_its_part(cluster: &Cluster) -> anyhow::Result<()> {
    let sync = Service::ReadModelSync;
    shows(
        cluster,
        sync,
        r#"projection_deliveries_total{outcome="applied"}"#,
        Some(1.0),
    )
    .await?;
    shows(cluster, sync, "projection_lag_seconds_count", Some(1.0)).await?;

    let fetch = Service::FetchBuyOrders;
    cluster
        .http()
        .get(cluster.url(fetch) + "/buy_orders")
        .send()
        .await?
        .error_for_status()?;
    assert_eq!(
        value(cluster, fetch, "buy_order_pages_served_total").await?,
        Some(1.0)
    );
    assert_eq!(
        value(cluster, fetch, "buy_order_rows_served_total").await?,
        Some(1.0)
    );
    let pages = r#"http_request_duration_seconds_count{method="GET",route="/buy_orders"}"#;
    assert_eq!(value(cluster, fetch, pages).await?, Some(1.0));

    let prices = Service::BtcPrice;
    assert!(value(cluster, prices, r#"coinbase_requests_total{outcome="price"}"#).await? >= Some(1.0));
    assert!(value(cluster, prices, r#"coinbase_requests_total{outcome="status"}"#).await? >= Some(1.0));
    assert!(value(cluster, prices, r#"quote_age_seconds{currency="USD"}"#).await? > Some(0.0));
    assert_eq!(
        value(cluster, prices, r#"quote_age_seconds{currency="GBP"}"#).await?,
        None
    );
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_shows_and_so_does_what_waits_for_it() -> anyhow::Result<()> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder, Service::ReadModelSync];
    let cluster = Cluster::start(Options::only(&services).with_own_servers()).await?;
    let create = Service::CreateBuyOrder;
    let relay = r#"broker_connected{connection="create_buy_order outbox relay"}"#;
    let projector = r#"broker_connected{connection="read_model_sync"}"#;
    shows(&cluster, create, relay, Some(1.0)).await?;
    shows(&cluster, Service::ReadModelSync, projector, Some(1.0)).await?;

    cluster.stop_server(Server::Broker).await?;
    shows(&cluster, create, relay, Some(0.0)).await?;
    shows(&cluster, Service::ReadModelSync, projector, Some(0.0)).await?;
    for _ in 0..3 {
        assert_eq!(put(&cluster, "10.00", Uuid::new_v4()).await?, 200);
    }
    shows(&cluster, create, "outbox_events", Some(3.0)).await?;
    assert!(value(&cluster, create, "outbox_oldest_age_seconds").await? > Some(0.0));

    cluster.start_server(Server::Broker).await?;
    shows(&cluster, create, relay, Some(1.0)).await?;
    shows(&cluster, create, "outbox_events", Some(0.0)).await?;
    shows(&cluster, create, "outbox_oldest_age_seconds", Some(0.0)).await?;

    // Gauges that are read from the write model are not shown while it is away.
    cluster.stop_server(Server::WriteModel).await?;
    for unknown in [
        "outbox_events",
        "outbox_oldest_age_seconds",
        "order_book_btc",
        "order_book_left_btc",
    ] {
        shows(&cluster, create, unknown, None).await?;
    }
    assert_eq!(put(&cluster, "10.00", Uuid::new_v4()).await?, 503);
    assert_eq!(
        value(&cluster, create, r#"buy_orders_refused_total{reason="not_read"}"#).await?,
        Some(1.0)
    );
    Ok(())
}
