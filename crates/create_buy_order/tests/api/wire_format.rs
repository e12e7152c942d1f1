//! The messages on the queue, as any consumer sees them.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Service, check_event, wait_until};
use common::buy_order_event::{BuyOrderCreated, BuyOrderVoided};
use lapin::message::Delivery;
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, ShortString};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::broker::channel;
use super::voids::void;
use super::{Answer, answer, buy, count, new_key, start_cluster};

/// The next message of the queue, which has no other consumer.
async fn next_message(cluster: &Cluster) -> anyhow::Result<Delivery> {
    wait_until("the event is in the queue", Duration::from_secs(30), async || {
        Ok(count(cluster, "outbox").await? == 0)
    })
    .await?;
    let channel = channel(cluster).await?;
    let next = channel.basic_get("buy_order".into(), BasicGetOptions { no_ack: true });
    Ok(next.await?.context("no message")?.delivery)
}

fn header<'a>(message: &'a Delivery, name: &str) -> Option<&'a str> {
    let headers = message.properties.headers().as_ref()?;
    let text = headers.inner().get(name).and_then(AMQPValue::as_long_string)?;
    std::str::from_utf8(text.as_bytes()).ok()
}

fn traceparent(message: &Delivery) -> &str {
    header(message, "traceparent").unwrap_or_default()
}

/// The trace id of a valid `traceparent` of version 00.
fn trace_id(traceparent: &str) -> Option<&str> {
    let hexadecimal = |part: &&str, digits| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &&str, digits| hexadecimal(part, digits) && part.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = traceparent.split('-').collect();
    match parts[..] {
        ["00", trace, parent, flags] if id(&trace, 32) && id(&parent, 16) && hexadecimal(&flags, 2) => {
            Some(trace)
        }
        _ => None,
    }
}

async fn buy_in_trace(cluster: &Cluster, traceparent: &str) -> anyhow::Result<Answer> {
    buy_with_headers(cluster, &[("traceparent", traceparent)]).await
}

/// Places an order with these headers, each on its own line.
async fn buy_with_headers(cluster: &Cluster, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let mut request = cluster.put_order(&cluster::new_order("GBP", "123.45"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send().await?).await
}

#[tokio::test]
async fn an_order_is_published_in_the_wire_format_with_the_trace_of_its_request() -> anyhow::Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let cluster = start_cluster().await?;
    let accepted = buy_in_trace(&cluster, &format!("00-{TRACE}-00f067aa0ba902b7-01")).await?;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    let (id, currency_id): (i64, i64) = sqlx::query_as("SELECT id, currency_id FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    let message = next_message(&cluster).await?;

    let exchange = &cluster.environment(Service::CreateBuyOrder)?["Q_EXCHANGE"];
    assert_eq!(message.exchange.as_str(), exchange);
    assert_eq!(message.routing_key.as_str(), "buy_order");
    let properties = &message.properties;
    let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
    assert_eq!(
        text(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(text(properties.kind()).as_deref(), Some("buy_order_created"));
    assert_eq!(
        text(properties.message_id()).as_deref(),
        Some(accepted.order("id"))
    );
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(text(properties.app_id()).as_deref(), Some("create_buy_order"));
    check_event(BuyOrderCreated::MESSAGE_TYPE, &message.data)?;
    assert_eq!(
        trace_id(traceparent(&message)),
        Some(TRACE),
        "{}",
        traceparent(&message)
    );
    let event: BuyOrderCreated = serde_json::from_slice(&message.data)?;
    let since_created =
        i64::try_from(properties.timestamp().context("no timestamp")?)? - event.created_at.unix_timestamp();
    assert!((0..=1).contains(&since_created), "{since_created} s");
    assert_eq!(
        std::str::from_utf8(&message.data)?,
        serde_json::to_string(&event)?
    );
    let order = &accepted.body["buy_order"];
    assert_eq!(
        serde_json::from_slice::<Value>(&message.data)?,
        json!({
            "id": id,
            "client_id": 1,
            "external_id": order["id"],
            "created_at": order["created_at"],
            "currency_id": currency_id,
            "currency_iso3": "GBP",
            "currency_amount": "123.45",
            "btc_rate": "35330.89000000",
            "btc_amount": order["btc_amount"],
        })
    );
    Ok(())
}

#[tokio::test]
async fn a_void_is_published_as_its_contract_says() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let order = buy(&cluster, "USD", "1", &new_key()).await?;
    next_message(&cluster).await?;
    // As long as a reason may be, and none of it in one byte.
    let reason = "\u{1f4a5}".repeat(500);
    assert_eq!(void(&cluster, &order, &reason).await?.code, Some(0));
    let message = next_message(&cluster).await?;
    let kind = message.properties.kind().as_ref().map(ToString::to_string);
    assert_eq!(kind.as_deref(), Some(BuyOrderVoided::MESSAGE_TYPE));
    check_event(BuyOrderVoided::MESSAGE_TYPE, &message.data)?;
    let event: BuyOrderVoided = serde_json::from_slice(&message.data)?;
    assert_eq!(
        (event.external_id.to_string().as_str(), event.reason),
        (order.order("id"), reason)
    );
    Ok(())
}

/// Orders at the limits of their columns, read with the settings of the session.
const ORDERS_AT_THE_LIMITS: &str = r"
    SELECT placed.id, placed.client_id, placed.external_id, placed.created_at, placed.currency_id, placed.currency_amount, placed.btc_rate,
           placed.btc_amount, buy_order_created_payload(placed, 'EUR') AS payload
      FROM (VALUES
           (1, '2026-11-23 15:37:32.531853Z', 1, 123.45, 48478.88, 0.00254647),
           (9223372036854775807, '2026-11-23 15:37:32Z', 9223372036854775807, 999999999.99, 999999999999.99999999, 100),
           (10, '1970-01-01 00:00:00.000001Z', 2, 0.01, 0.00000001, 0.00000001),
           (100, '9999-12-31 23:59:59.999999Z', 3, 1, 1, 1),
           (1000, '2024-02-29 23:30:00.1Z', 3, 10, 100.5, 99.9))
           AS given (id, created_at, currency_id, currency_amount, btc_rate, btc_amount)
     CROSS JOIN LATERAL jsonb_populate_record(NULL::buy_order, jsonb_build_object(
           'id', id, 'created_at', created_at::timestamptz, 'external_id', gen_random_uuid(), 'client_id', id, 'currency_id', currency_id,
           'currency_amount', currency_amount, 'idempotence_key', gen_random_uuid(), 'btc_rate', btc_rate, 'btc_amount', btc_amount)) AS placed";

struct OrderAtTheLimits {
    id: i64,
    client_id: i64,
    external_id: Uuid,
    created_at: OffsetDateTime,
    currency_id: i64,
    currency_amount: Decimal,
    btc_rate: Decimal,
    btc_amount: Decimal,
    payload: String,
}

common::from_row!(OrderAtTheLimits {
    id,
    client_id,
    external_id,
    created_at,
    currency_id,
    currency_amount,
    btc_rate,
    btc_amount,
    payload
});

#[tokio::test]
async fn what_the_write_model_writes_is_to_the_byte_what_this_code_would_write() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let mut session = cluster.write_model().acquire().await?;
    for setting in [
        "TimeZone = 'UTC'",
        "TimeZone = 'Asia/Kathmandu'",
        "DateStyle = 'German, DMY'",
        "extra_float_digits = 0",
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SET {setting}")))
            .execute(&mut *session)
            .await?;
        let orders: Vec<OrderAtTheLimits> = sqlx::query_as(ORDERS_AT_THE_LIMITS)
            .fetch_all(&mut *session)
            .await?;
        assert_eq!(orders.len(), 5);
        for order in orders {
            let event = BuyOrderCreated {
                id: order.id,
                client_id: order.client_id,
                external_id: order.external_id,
                created_at: order.created_at,
                currency_id: order.currency_id,
                currency_iso3: "EUR".to_owned(),
                currency_amount: order.currency_amount.try_into()?,
                btc_rate: order.btc_rate.try_into()?,
                btc_amount: order.btc_amount.try_into()?,
            };
            assert_eq!(order.payload, serde_json::to_string(&event)?, "{setting}");
            check_event(BuyOrderCreated::MESSAGE_TYPE, order.payload.as_bytes())?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_message_of_any_other_type_is_published_as_it_is() -> anyhow::Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PAYLOAD: &str = r#"{ "text": "ünïcode",  "number": 1.50 }"#;
    let cluster = start_cluster().await?;
    let message_id: Uuid = sqlx::query_scalar(
        "INSERT INTO outbox (type, routing_key, message_id, payload, traceparent, tracestate)
         VALUES ('something_else', 'buy_order', gen_random_uuid(), $1, $2, 'foo=1,bar=2') RETURNING message_id",
    )
    .bind(PAYLOAD)
    .bind(format!("00-{TRACE}-00f067aa0ba902b7-01"))
    .fetch_one(cluster.write_model())
    .await?;
    let message = next_message(&cluster).await?;
    assert_eq!(std::str::from_utf8(&message.data)?, PAYLOAD);
    assert_eq!(message.routing_key.as_str(), "buy_order");
    let properties = &message.properties;
    let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.kind()).as_deref(), Some("something_else"));
    assert_eq!(text(properties.message_id()), Some(message_id.to_string()));
    assert_eq!(
        text(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(trace_id(traceparent(&message)), Some(TRACE));
    assert_eq!(header(&message, "tracestate"), Some("foo=1,bar=2"));
    Ok(())
}

#[tokio::test]
async fn an_order_without_a_valid_trace_is_published_in_a_trace_of_its_own() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    buy(&cluster, "USD", "1", &new_key()).await?;
    let first = next_message(&cluster).await?;
    buy_in_trace(&cluster, "00-nonsense-01").await?;
    let second = next_message(&cluster).await?;
    let traces = [&first, &second].map(|message| trace_id(traceparent(message)));
    assert!(traces.iter().all(Option::is_some), "{first:?} {second:?}");
    assert_ne!(traces[0], traces[1]);
    Ok(())
}

#[tokio::test]
async fn the_state_of_other_tracers_is_published_with_the_trace_and_two_callers_are_none()
-> anyhow::Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let caller = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let caller = ("traceparent", caller.as_str());
    let state = [("tracestate", "foo=1"), ("tracestate", "bar=2")];
    let cluster = start_cluster().await?;
    buy_with_headers(&cluster, &[caller, state[0], state[1]]).await?;
    let message = next_message(&cluster).await?;
    assert_eq!(trace_id(traceparent(&message)), Some(TRACE));
    assert_eq!(header(&message, "tracestate"), Some("foo=1,bar=2"));

    buy_with_headers(&cluster, &[caller, caller, state[0]]).await?;
    let message = next_message(&cluster).await?;
    let new = trace_id(traceparent(&message));
    assert!(new.is_some() && new != Some(TRACE), "{message:?}");
    assert_eq!(header(&message, "tracestate"), None);
    Ok(())
}

/// A resource of the broker's management interface.
async fn described(cluster: &Cluster, resource: &str) -> anyhow::Result<Value> {
    let broker = cluster.queue();
    let request = cluster.http().get(broker.api(resource));
    let response = request.basic_auth(&broker.user, Some(&broker.password)).send();
    Ok(response.await?.error_for_status()?.json().await?)
}

#[tokio::test]
async fn events_go_through_a_durable_direct_exchange_to_a_durable_quorum_queue() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    buy(&cluster, "USD", "1", &new_key()).await?;
    let message = next_message(&cluster).await?;
    let queue = described(&cluster, &format!("queues/{{vhost}}/{}", message.routing_key)).await?;
    assert_eq!(
        (&queue["durable"], &queue["type"]),
        (&json!(true), &json!("quorum"))
    );
    let exchange = described(&cluster, &format!("exchanges/{{vhost}}/{}", message.exchange)).await?;
    assert_eq!(
        (&exchange["durable"], &exchange["type"]),
        (&json!(true), &json!("direct"))
    );
    Ok(())
}
