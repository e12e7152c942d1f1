//! An order that is placed from the page, on its way.

use cluster::{Cluster, Service, new_order, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Events, LIMIT, all_well, alone, url, with_console};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent(trace_id: &str) -> String {
    format!("00-{trace_id}-00f067aa0ba902b7-01")
}

fn put(cluster: &Cluster) -> reqwest::RequestBuilder {
    let request = cluster.http().put(url(cluster, "/buy_order"));
    request.json(&new_order("USD", "1"))
}

async fn journey(cluster: &Cluster, trace_id: &str) -> anyhow::Result<(StatusCode, Value)> {
    let journey = url(cluster, &format!("/journeys/{trace_id}"));
    let answer = cluster.http().get(journey).send().await?;
    Ok((answer.status(), answer.json().await?))
}

#[tokio::test]
async fn an_order_is_passed_on_counted_projected_and_its_way_is_known() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    all_well(&cluster).await?;
    let mut events = Events::of(&cluster).await?;
    assert_eq!(journey(&cluster, TRACE).await?.0, StatusCode::NOT_FOUND);

    let placed = put(&cluster)
        .header("traceparent", traceparent(TRACE))
        .send()
        .await?;
    assert_eq!(placed.status(), StatusCode::OK);
    assert_eq!(placed.headers()["content-type"], "application/json");
    assert!(placed.headers().contains_key("x-request-id"));
    let position = placed.headers()["order-position"].clone();
    let order: Value = placed.json().await?;

    let page = cluster.http().get(url(&cluster, "/buy_orders?page_size=1"));
    let page = page.header("order-position", position).send().await?;
    assert_eq!(page.status(), StatusCode::OK);
    let page: Value = page.json().await?;
    assert_eq!(page["rows"][0]["id"], order["buy_order"]["id"]);

    let mut seen = json!({});
    for _ in 0..5 {
        let state = events.next_state().await?;
        for rate in ["accepted", "projected", "pages", "lag_p99_s"] {
            if state["point"][rate].as_f64().is_some_and(|rate| rate > 0.0) {
                seen[rate] = true.into();
            }
        }
        let prices = state["prices"].as_array().unwrap();
        if let Some(usd) = prices.iter().find(|price| price["currency"] == "USD")
            && usd["rate"].is_string()
            && usd["age_s"].is_number()
        {
            seen["price"] = true.into();
        }
    }
    assert_eq!(
        seen,
        json!({"accepted": true, "projected": true, "pages": true, "lag_p99_s": true, "price": true})
    );

    let mut last = Value::Null;
    wait_until("the order's way is known", LIMIT, async || {
        let (status, known) = journey(&cluster, TRACE).await?;
        last = known;
        Ok(status == StatusCode::OK && last["is_projected"] == true && has_begun(&last))
    })
    .await
    .map_err(|error| error.context(last.to_string()))?;
    let spans = last["spans"].as_array().unwrap();
    assert_eq!(
        (&spans[0]["began_ms"], &last["trace_id"]),
        (&json!(0.0), &json!(TRACE))
    );
    assert!(spans.iter().all(|span| span["failed"] == false), "{last}");
    wait_until("its event has its trace", LIMIT, async || {
        let logs = cluster.logs(Service::Console);
        let mut passed_on = logs
            .iter()
            .filter(|line| line["event"] == "console_order_passed_on");
        Ok(passed_on.any(|line| line["trace_id"] == TRACE))
    })
    .await?;
    Ok(())
}

fn has_begun(journey: &Value) -> bool {
    let spans = journey["spans"].as_array().unwrap();
    [
        "PUT /buy_order",
        "SELECT accept_orders",
        "publish pydist:buy_order",
    ]
    .iter()
    .all(|name| {
        let is_it = |span: &&Value| span["name"] == *name && span["service"] == "create_buy_order";
        spans.iter().any(|span| is_it(&span))
    })
}

#[tokio::test]
async fn load_that_does_not_come_from_the_page_is_not_recorded() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    for _ in 0..20 {
        assert_eq!(
            cluster.put_order(&new_order("USD", "1")).send().await?.status(),
            200
        );
    }
    // Longer than the services wait before they export.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let metrics = cluster
        .http()
        .get(url(&cluster, "/metrics"))
        .send()
        .await?
        .text()
        .await?;
    let exports = metrics
        .lines()
        .find(|line| line.starts_with("http_requests_total") && line.contains("/v1/traces"));
    assert_eq!(exports, None);
    Ok(())
}

#[tokio::test]
async fn what_a_service_refuses_is_told_as_it_says_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    let refused = cluster.http().put(url(&cluster, "/buy_order")).json(&json!({}));
    let refused = refused.send().await?;
    let status = refused.status();
    let body: Value = refused.json().await?;
    let asked = cluster
        .http()
        .put(cluster.url(Service::CreateBuyOrder) + "/buy_order");
    let asked = asked.json(&json!({})).send().await?;
    assert_eq!(status, asked.status());
    assert_eq!(body, asked.json::<Value>().await?);
    let long = cluster
        .http()
        .put(url(&cluster, "/buy_order"))
        .body("x".repeat(65 * 1024));
    assert_eq!(long.send().await?.status(), StatusCode::PAYLOAD_TOO_LARGE);
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_away_is_named() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let page = cluster.http().get(url(&cluster, "/buy_orders"));
    for (request, detail) in [
        (put(&cluster), "create_buy_order does not answer, try again"),
        (page, "fetch_buy_orders does not answer, try again"),
    ] {
        let answer = request.send().await?;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.json::<Value>().await?, json!({"detail": detail}));
    }
    Ok(())
}
