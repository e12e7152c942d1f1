//! `X-Request-Id` is in every answer, and in every event of the services that handle the request.

use std::time::Duration;

use cluster::{Behaviour, Cluster, Options, Service, wait_until};
use reqwest::{Method, Response};
use serde_json::Value;

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

use crate::forward_server::Server as ForwardServer;

const LIMIT: Duration = Duration::from_secs(30);

fn request_id(response: &Response) -> Option<&str> {
    response.headers().get("x-request-id")?.to_str().ok()
}

/// The events of a service with this id.
fn events_of(cluster: &Cluster, service: Service, id: &str) -> Vec<Value> {
    let mut events = cluster.logs(service);
    events.retain(|line| line["request_id"] == id);
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect()
}

#[tokio::test]
async fn a_request_keeps_its_id_through_all_services_that_answer_it_on_both_outlets() -> anyhow::Result<()> {
    const ID: &str = "order-desk:42/a";
    let log = ForwardServer::start(0).await?;
    let mut options = Options::default();
    for service in Service::OF_ORDERS {
        options = options.with_env(service, "LOGGING_HOST", "127.0.0.1").with_env(
            service,
            "LOGGING_PORT",
            log.port.to_string(),
        );
    }
    let cluster = Cluster::start(options).await?;
    let put = cluster.http().put(cluster.url(CreateBuyOrder) + "/buy_order");
    let answer = put
        .header("X-Request-Id", ID)
        .header("X-Forwarded-For", "10.0.0.1, 192.0.2.7")
        .json(&cluster::new_order("USD", "1"))
        .send()
        .await?;
    assert_eq!((answer.status().as_u16(), request_id(&answer)), (200, Some(ID)));

    const CREATING: [&str; 3] = [
        "create_buy_order_request_received",
        "buy_order_created",
        "create_buy_order_response_returned",
    ];
    const PRICING: [&str; 2] = ["btc_price_requested", "btc_price_quoted"];
    wait_until("all events are on standard output", LIMIT, async || {
        Ok(names(&events_of(&cluster, CreateBuyOrder, ID)) == CREATING
            && names(&events_of(&cluster, BtcPrice, ID)) == PRICING)
    })
    .await?;
    let events: Vec<Value> = [CreateBuyOrder, BtcPrice]
        .into_iter()
        .flat_map(|service| events_of(&cluster, service, ID))
        .collect();
    let trace_id = events[0]["trace_id"].as_str().unwrap_or_default().to_owned();
    let with_address = events
        .iter()
        .filter(|event| event["client_address"] == "192.0.2.7");
    assert_eq!(
        names(&with_address.cloned().collect::<Vec<_>>()),
        CREATING,
        "{events:?}"
    );
    assert!(trace_id.len() == 32 && events.iter().all(|event| event["trace_id"] == trace_id.as_str()));

    wait_until("the order is projected", LIMIT, async || {
        let synced = cluster.logs(ReadModelSync);
        let mut synced = synced
            .iter()
            .filter(|line| line["event"] == "buy_order_read_model_synced");
        Ok(synced.any(|line| line["trace_id"] == trace_id.as_str()))
    })
    .await?;
    wait_until("all events are at the log", LIMIT, async || {
        let of_request = |entry: &&Value| {
            entry["record"]["request_id"] == ID && entry["record"]["trace_id"] == trace_id.as_str()
        };
        Ok(log.events().iter().filter(of_request).count() == CREATING.len() + PRICING.len())
    })
    .await
}

#[tokio::test]
async fn an_id_is_made_where_none_or_nonsense_was_given() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let client = cluster.http();
    for service in Service::OF_ORDERS {
        let answer = client.get(cluster.url(service) + "/healthcheck").send().await?;
        assert!(is_made(request_id(&answer)), "{service:?}: {answer:?}");
    }
    let orders = cluster.url(CreateBuyOrder) + "/buy_order";
    for nonsense in ["", "two words", "quo\"te", "ümlaut", &"x".repeat(200)] {
        let value = reqwest::header::HeaderValue::from_bytes(nonsense.as_bytes())?;
        let request = client.put(&orders).header("X-Request-Id", value);
        let answer = request.json(&cluster::new_order("USD", "1")).send().await?;
        let id = request_id(&answer).unwrap_or_default();
        assert!(is_made(Some(id)), "{nonsense:?}: {answer:?}");
        wait_until("the events have the new id", LIMIT, async || {
            Ok(events_of(&cluster, CreateBuyOrder, id).len() == 3)
        })
        .await?;
    }
    Ok(())
}

fn is_made(id: Option<&str>) -> bool {
    id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

#[tokio::test]
async fn every_answer_has_the_id_also_one_of_a_failure_and_of_the_documentation() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    cluster.prices().answer_with(Behaviour::Status(500));
    let large = format!("{{\"amount\":\"{}\"}}", "1".repeat(20_000));
    let unpriced = cluster::new_order("EUR", "1").to_string();
    let (get, put) = (Method::GET, Method::PUT);
    for (status, method, service, path, body) in [
        (404, &get, Migration, "/nowhere", ""),
        (405, &get, CreateBuyOrder, "/buy_order", ""),
        (413, &put, CreateBuyOrder, "/buy_order", &large),
        (422, &put, CreateBuyOrder, "/buy_order", "{}"),
        (503, &put, CreateBuyOrder, "/buy_order", &unpriced),
        (400, &get, BtcPrice, "/buy?currency=JPY", ""),
        (200, &get, FetchBuyOrders, "/docs/", ""),
        (200, &get, ReadModelSync, "/openapi.json", ""),
    ] {
        let request = cluster
            .http()
            .request(method.clone(), cluster.url(service) + path);
        let request = request.header("X-Request-Id", "mine").body(body.to_owned());
        let answer = request.header("content-type", "application/json").send().await?;
        assert_eq!(
            (answer.status().as_u16(), request_id(&answer)),
            (status, Some("mine")),
            "{path}"
        );
    }
    sqlx::query("ALTER TABLE buy_order RENAME COLUMN idempotence_key TO lost")
        .execute(cluster.write_model())
        .await?;
    let put = cluster.http().put(cluster.url(CreateBuyOrder) + "/buy_order");
    let broken = put
        .header("X-Request-Id", "broken")
        .json(&cluster::new_order("USD", "1"))
        .send()
        .await?;
    assert!(
        broken.status().is_server_error() && request_id(&broken) == Some("broken"),
        "{broken:?}"
    );
    wait_until("the failures are logged with their ids", LIMIT, async || {
        let logs = |id| {
            let events = events_of(&cluster, CreateBuyOrder, id);
            names(&events).contains(&"request_failed")
        };
        Ok(logs("mine") && logs("broken"))
    })
    .await
}
