//! The events of the contract with their names and fields, on both outlets: standard output and Fluentd's forward protocol.

use std::time::Duration;

use cluster::{Behaviour, Cluster, Options, PortLease, Service, wait_until};
use serde_json::Value;

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

use crate::forward_server::Server as ForwardServer;

const LIMIT: Duration = Duration::from_secs(60);

/// Service, event, fields.
type Expected = (Service, &'static str, &'static [&'static str]);

const DATABASE: &[&str] = &["database", "port", "host", "user"];
const QUEUE: &[&str] = &["queue_name"];

/// The events from the start of the services, through an order, to the stop of a service.
const ORDERS_WAY: &[Expected] = &[
    (CreateBuyOrder, "connected_to_logging", &[]),
    (
        CreateBuyOrder,
        "failed_to_connect_to_logging",
        &["host", "port", "info"],
    ),
    (CreateBuyOrder, "service_started", &[]),
    (CreateBuyOrder, "health_checked", &["count"]),
    (CreateBuyOrder, "connected_to_database", DATABASE),
    (CreateBuyOrder, "waiting_for_migrations", &[]),
    (CreateBuyOrder, "queue_publisher_connected", QUEUE),
    (
        CreateBuyOrder,
        "create_buy_order_request_received",
        &["currency", "amount", "idempotence_key", "client_id"],
    ),
    (
        CreateBuyOrder,
        "create_buy_order_response_returned",
        &["external_id"],
    ),
    (CreateBuyOrder, "buy_order_created", &["id", "external_id"]),
    (
        CreateBuyOrder,
        "buy_order_request_idempotence_cache_hit",
        &["client_id", "currency", "amount", "idempotence_key"],
    ),
    (CreateBuyOrder, "btc_price_client_failed", &["currency"]),
    (
        CreateBuyOrder,
        "request_failed",
        &["request", "error", "reference"],
    ),
    (BtcPrice, "btc_price_requested", &["currency"]),
    (
        BtcPrice,
        "btc_price_quoted",
        &["source", "timestamp", "currency", "rate"],
    ),
    (
        BtcPrice,
        "coinbase_client_exception_occurred",
        &["currency", "price_type", "info"],
    ),
    (ReadModelSync, "queue_listener_starting_consumption", QUEUE),
    (ReadModelSync, "buy_order_read_model_synced", &["id"]),
    (
        FetchBuyOrders,
        "buy_orders_page_requested",
        &["client_id", "last_reference", "page_size"],
    ),
    (FetchBuyOrders, "service_shut_down", &["exit_code"]),
    (Migration, "connected_to_database", DATABASE),
    (Migration, "database_migrated", &["database"]),
    (Migration, "queue_declared", QUEUE),
];

#[tokio::test]
async fn every_event_of_an_orders_way_is_on_both_outlets_and_a_log_away_at_the_start_costs_nothing()
-> anyhow::Result<()> {
    let lease = PortLease::take()?;
    let mut options = Options::default();
    for service in Service::OF_ORDERS {
        options = options
            .with_env(service, "LOGGING_HOST", "127.0.0.1")
            .with_env(service, "LOGGING_PORT", lease.port().to_string())
            .with_env(service, "LOGGING_RETRY_S", "0.1");
    }
    let cluster = Cluster::start(options).await?;
    live_through_an_orders_way(&cluster).await?;

    let log = ForwardServer::start(lease.port()).await?;
    cluster.stop(FetchBuyOrders).await?;
    wait_until("all events are on both outlets", LIMIT, async || {
        missing(&cluster, Some(&log), ORDERS_WAY)
    })
    .await
}

/// An order, its repeat and its page, and an order without a price.
async fn live_through_an_orders_way(cluster: &Cluster) -> anyhow::Result<()> {
    let order = cluster::new_order("USD", "10");
    let mut placed = Value::Null;
    for _ in 0..2 {
        let answer = cluster.put_order(&order).send().await?;
        placed = answer.error_for_status()?.json().await?;
    }
    cluster.prices().answer_with(Behaviour::Status(500));
    let unpriced = cluster::new_order("EUR", "10");
    let refused = cluster.put_order(&unpriced).send().await?;
    assert_eq!(refused.status(), 503);

    let pages = format!(
        "{}/buy_orders?last_reference={}",
        cluster.url(Service::FetchBuyOrders),
        placed["buy_order"]["id"].as_str().unwrap()
    );
    wait_until("the order is projected", LIMIT, async || {
        Ok(cluster.http().get(&pages).send().await?.status() == 200)
    })
    .await
}

#[tokio::test]
async fn every_event_of_a_dependency_that_is_away_names_it() -> anyhow::Result<()> {
    const EXPECTED: &[Expected] = &[
        (
            FetchBuyOrders,
            "failed_to_connect_to_database",
            &["database", "port", "host", "user", "error"],
        ),
        (BtcPrice, "service_configuration_exception_occurred", &["info"]),
        (
            CreateBuyOrder,
            "queue_publisher_failed_to_connect",
            &["queue_host", "queue_port", "queue_name", "info"],
        ),
        (
            ReadModelSync,
            "queue_listener_failed_to_connect",
            &["queue_host", "queue_port", "queue_name", "error"],
        ),
    ];
    let cluster = Cluster::start(Options::only(&[])).await?;
    let nobody = PortLease::take()?.port().to_string();
    for (service, variable) in [
        (FetchBuyOrders, "READ_MODEL_DB_PORT"),
        (CreateBuyOrder, "Q_PORT"),
        (ReadModelSync, "Q_PORT"),
    ] {
        cluster.set_env(service, variable, &nobody);
        cluster.launch(service)?;
    }
    cluster.set_env(BtcPrice, "CB_PORT", "many");
    cluster.launch(BtcPrice)?;
    wait_until("all events are there", LIMIT, async || {
        missing(&cluster, None, EXPECTED)
    })
    .await
}

#[tokio::test]
async fn a_service_that_waits_for_migrations_or_cannot_serve_says_so() -> anyhow::Result<()> {
    const EXPECTED: &[Expected] = &[
        (
            FetchBuyOrders,
            "migrations_service_connection_error",
            &["error_text"],
        ),
        (CreateBuyOrder, "service_web_serve_exception_occurred", &["info"]),
        (BtcPrice, "service_run_logic_exception_occurred", &["info"]),
    ];
    let cluster = Cluster::start(Options::only(&[])).await?;
    let nobody = PortLease::take()?.port().to_string();
    cluster.set_env(FetchBuyOrders, "MIGRATION_PORT", &nobody);
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken_port = taken.local_addr()?.port().to_string();
    cluster.set_env(CreateBuyOrder, "SERVICE_PORT", &taken_port);
    cluster.set_env(BtcPrice, "EXTRA_CA_FILE", "/no/such/file.pem");
    for service in [FetchBuyOrders, CreateBuyOrder, BtcPrice] {
        cluster.launch(service)?;
    }
    for service in [CreateBuyOrder, BtcPrice] {
        assert_eq!(cluster.wait_for_end(service, LIMIT).await?.code(), Some(1));
    }
    wait_until("all events are there", LIMIT, async || {
        missing(&cluster, None, EXPECTED)
    })
    .await
}

#[tokio::test]
async fn probes_are_not_logged_one_by_one() -> anyhow::Result<()> {
    const EACH: usize = 300;
    let cluster = Cluster::start(Options::only(&[BtcPrice])).await?;
    let http = cluster.http();
    for path in ["/healthcheck", "/livez", "/readyz", "/metrics"] {
        let url = cluster.url(BtcPrice) + path;
        for _ in 0..EACH {
            assert_eq!(http.get(&url).send().await?.status(), 200, "{path}");
        }
    }
    cluster.stop(BtcPrice).await?; // flushes
    let lines = cluster.output(BtcPrice);
    assert!(lines.len() < EACH / 10, "{} lines: {lines:#?}", lines.len());
    Ok(())
}

/// `true` if every expected event is there with all its fields, otherwise an error with the missing ones.
fn missing(cluster: &Cluster, log: Option<&ForwardServer>, expected: &[Expected]) -> anyhow::Result<bool> {
    let logged = log.map(ForwardServer::events).unwrap_or_default();
    let has_fields = |record: &Value, fields: &[&str]| fields.iter().all(|field| !record[field].is_null());
    let mut absent = Vec::new();
    for (service, event, fields) in expected {
        let on_stdout = cluster
            .logs(*service)
            .iter()
            .any(|line| line["event"] == *event && has_fields(line, fields));
        let tag = format!("pydist.{}.{event}", service.name());
        let at_log = logged
            .iter()
            .any(|entry| entry["tag"] == tag.as_str() && has_fields(&entry["record"], fields));
        if !on_stdout {
            absent.push(format!("{tag} on standard output"));
        }
        if !at_log && log.is_some() {
            absent.push(format!("{tag} at the log"));
        }
    }
    anyhow::ensure!(absent.is_empty(), "absent: {}", absent.join(", "));
    Ok(true)
}
