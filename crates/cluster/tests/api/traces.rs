//! One order is one trace, from PUT to projection; and a failure of tracing does not fail an order.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Behaviour, Cluster, Options, PortLease, Service, wait_until};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::Instant;

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, ReadModelSync};

use crate::otlp_receiver::{Receiver, Span};

const LIMIT: Duration = Duration::from_secs(30);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn exporting_to(url: &str) -> Options {
    let mut options = Options::default();
    for service in Service::OF_ORDERS {
        options = options
            .with_env(service, "OTEL_EXPORTER_OTLP_ENDPOINT", url)
            .with_env(service, "OTEL_BSP_SCHEDULE_DELAY", "100");
    }
    options
}

fn put(cluster: &Cluster) -> reqwest::RequestBuilder {
    cluster.put_order(&cluster::new_order("USD", "1"))
}

async fn projected(cluster: &Cluster, orders: i64) -> anyhow::Result<()> {
    wait_until("the orders are projected", LIMIT, async || {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
            .fetch_one(cluster.read_model())
            .await?;
        Ok(count == orders)
    })
    .await
    .with_context(|| cluster.last_lines())
}

/// Waits until a trace has this many spans, and returns them.
async fn trace(receiver: &Receiver, trace_id: &str, spans: usize) -> anyhow::Result<Vec<Span>> {
    let of_trace = || -> Vec<Span> {
        let all = receiver.spans().into_iter();
        all.filter(|span| span.trace_id == trace_id).collect()
    };
    wait_until("the spans are at the receiver", LIMIT, async || {
        Ok(of_trace().len() >= spans)
    })
    .await
    .with_context(|| format!("{:#?}", of_trace()))?;
    Ok(of_trace())
}

/// The only span with this name. Checks its service and its parent.
fn only<'a>(
    spans: &'a [Span],
    (service, kind, name): (Service, SpanKind, &str),
    parent_id: &str,
) -> anyhow::Result<&'a Span> {
    let is_it = |span: &&Span| span.service == service.name() && span.kind == kind && span.name == name;
    let found: Vec<&Span> = spans.iter().filter(is_it).collect();
    anyhow::ensure!(
        found.len() == 1 && found[0].parent_id == parent_id,
        "not one {kind:?} span {name:?} of {service:?} under {parent_id}: {spans:#?}"
    );
    Ok(found[0])
}

#[tokio::test]
async fn one_order_is_one_trace_from_put_to_projection() -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let cluster = Cluster::start(exporting_to(&receiver.url)).await?;
    let request = put(&cluster).header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    // `tracestate` may come in several lines.
    let request = request
        .header("tracestate", "foo=1")
        .header("tracestate", "bar=2");
    assert_eq!(request.send().await?.status(), 200);

    let spans = trace(&receiver, TRACE, 7).await?;
    assert!(spans.iter().all(|span| span.state == "foo=1,bar=2"), "{spans:#?}");
    assert!(exports(&cluster, CreateBuyOrder)?);
    assert_eq!(spans.len(), 7, "{spans:#?}");
    let received = only(
        &spans,
        (CreateBuyOrder, SpanKind::Server, "PUT /buy_order"),
        CALLER,
    )?;
    let asks = only(
        &spans,
        (CreateBuyOrder, SpanKind::Client, "GET"),
        &received.span_id,
    )?;
    let quoted = only(&spans, (BtcPrice, SpanKind::Server, "GET /buy"), &asks.span_id)?;
    only(&spans, (BtcPrice, SpanKind::Client, "GET"), &quoted.span_id)?;
    let accept = (CreateBuyOrder, SpanKind::Client, "SELECT accept_orders");
    let written = only(&spans, accept, &received.span_id)?;
    let publish = (CreateBuyOrder, SpanKind::Producer, "publish pydist:buy_order");
    let published = only(&spans, publish, &written.span_id)?;
    let process = (ReadModelSync, SpanKind::Consumer, "process pydist:buy_order");
    let processed = only(&spans, process, &published.span_id)?;

    assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");
    assert!(
        spans.iter().all(|span| span.started_ns < span.ended_ns),
        "{spans:#?}"
    );
    let environment = cluster.environment(CreateBuyOrder)?;
    for (span, attribute, value) in [
        (received, "http.route", "/buy_order"),
        (received, "http.response.status_code", "200"),
        (asks, "http.response.status_code", "200"),
        (quoted, "http.request.method", "GET"),
        (written, "db.operation.batch.size", "1"),
        (written, "db.namespace", &environment["WRITE_MODEL_DB_NAME"]),
        (written, "server.address", &environment["WRITE_MODEL_DB_HOST"]),
        (written, "server.port", &environment["WRITE_MODEL_DB_PORT"]),
        (published, "messaging.system", "rabbitmq"),
        (published, "server.address", &environment["Q_HOST"]),
        (published, "server.port", &environment["Q_PORT"]),
        (processed, "messaging.operation.type", "process"),
        (processed, "server.port", &environment["Q_PORT"]),
    ] {
        assert_eq!(
            span.attributes.get(attribute).map(String::as_str),
            Some(value),
            "{span:#?}"
        );
    }
    for span in &spans {
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
    }
    let instance = |span: &Span| span.resource["service.instance.id"].clone();
    assert_eq!(instance(received), instance(published));
    assert_ne!(instance(received), instance(processed));
    assert_eq!(
        published.attributes["messaging.message.id"],
        processed.attributes["messaging.message.id"]
    );
    Ok(())
}

#[tokio::test]
async fn a_caller_decides_whether_its_trace_is_exported_and_each_other_order_has_a_trace_of_its_own()
-> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let cluster = Cluster::start(exporting_to(&receiver.url)).await?;
    let unsampled = put(&cluster).header("traceparent", format!("00-{TRACE}-{CALLER}-00"));
    assert_eq!(unsampled.send().await?.status(), 200);
    for _ in 0..2 {
        assert_eq!(put(&cluster).send().await?.status(), 200);
    }
    projected(&cluster, 3).await?;

    let mut traces = Vec::new();
    wait_until("both traces are at the receiver", LIMIT, async || {
        let spans = receiver.spans();
        let consumed = spans.iter().filter(|span| span.kind == SpanKind::Consumer);
        traces = consumed.map(|span| span.trace_id.clone()).collect();
        Ok(traces.len() >= 2)
    })
    .await?;
    assert_eq!(traces.len(), 2, "{traces:?}");
    assert_ne!(traces[0], traces[1]);
    for service in [CreateBuyOrder, ReadModelSync] {
        cluster.stop(service).await?; // flushes
    }
    assert!(receiver.spans().iter().all(|span| span.trace_id != TRACE));
    // The context is passed on anyway.
    let synced = logged(&cluster, ReadModelSync, "buy_order_read_model_synced").await?;
    assert!(
        synced.iter().any(|event| event["trace_id"] == TRACE),
        "{synced:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_failure_is_the_status_of_its_spans() -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let cluster = Cluster::start(exporting_to(&receiver.url)).await?;
    cluster.prices().answer_with(Behaviour::Status(500));
    let request = put(&cluster).header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert_eq!(request.send().await?.status(), 503);
    let spans = trace(&receiver, TRACE, 4).await?;
    assert!(
        spans.len() == 4 && spans.iter().all(|span| span.failed),
        "{spans:#?}"
    );
    let mut kinds: Vec<&str> = spans
        .iter()
        .map(|span| span.attributes["error.type"].as_str())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["500", "503", "503", "503"]);
    Ok(())
}

#[tokio::test]
async fn spans_that_wait_are_exported_before_a_service_ends() -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let cluster = Cluster::start(exporting_to(&receiver.url).with_env(
        FetchBuyOrders,
        "OTEL_BSP_SCHEDULE_DELAY",
        "3600000",
    ))
    .await?;
    let pages = cluster.url(FetchBuyOrders) + "/buy_orders";
    assert_eq!(cluster.http().get(pages).send().await?.status(), 200);
    cluster.stop(FetchBuyOrders).await?;
    let spans = receiver.spans();
    assert!(
        spans
            .iter()
            .any(|span| span.name == "GET /buy_orders" && span.service == "fetch_buy_orders"),
        "{spans:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_costs_no_order_and_no_time() -> anyhow::Result<()> {
    let away = PortLease::take()?;
    // The kernel accepts the connection, and nothing answers.
    let hanging = TcpListener::bind("127.0.0.1:0").await?;
    for (port, report) in [
        (away.port(), "trace_export_failed"),
        (hanging.local_addr()?.port(), "SpanDroppingStarted"),
    ] {
        let options = exporting_to(&format!("http://127.0.0.1:{port}"));
        // The queue is full after a few orders.
        let options = options.with_env(CreateBuyOrder, "OTEL_BSP_MAX_QUEUE_SIZE", "5");
        let options = options.with_env(CreateBuyOrder, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5");
        let cluster = Cluster::start(options).await?;
        for _ in 0..50 {
            let asked = Instant::now();
            assert_eq!(put(&cluster).send().await?.status(), 200);
            assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        }
        projected(&cluster, 50).await?;
        wait_until("the loss is reported", Duration::from_secs(20), async || {
            let lines = cluster.output(CreateBuyOrder);
            Ok(lines.iter().any(|line| line.contains(report)))
        })
        .await?;
        let asked = Instant::now();
        assert!(cluster.stop(CreateBuyOrder).await?.success());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_exported_and_orders_are_traced_all_the_same() -> anyhow::Result<()> {
    // The default port of the standard for exporters. If it is not free, another program uses it.
    let standard_port = TcpListener::bind("127.0.0.1:4318").await;
    let cluster = Cluster::start(Options::default()).await?;
    let request = put(&cluster).header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert_eq!(request.send().await?.status(), 200);
    projected(&cluster, 1).await?;
    for (service, event) in [
        (CreateBuyOrder, "buy_order_created"),
        (BtcPrice, "btc_price_quoted"),
        (ReadModelSync, "buy_order_read_model_synced"),
    ] {
        let events = logged(&cluster, service, event).await?;
        assert!(events.len() == 1 && events[0]["trace_id"] == TRACE, "{events:?}");
        assert!(!exports(&cluster, service)?, "{service:?} has an exporter");
    }
    for service in Service::OF_ORDERS {
        cluster.stop(service).await?;
    }
    if let Ok(listener) = standard_port {
        let nobody = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(nobody.is_err(), "somebody connected");
    }
    Ok(())
}

/// Whether a service has the exporter's thread.
fn exports(cluster: &Cluster, service: Service) -> anyhow::Result<bool> {
    let pid = cluster.pid(service).context("it does not run")?;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = std::fs::read_to_string(task?.path().join("comm"))?;
        if name.starts_with("OpenTelemetry") {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn logged(cluster: &Cluster, service: Service, event: &str) -> anyhow::Result<Vec<Value>> {
    let find = || {
        let mut events = cluster.logs(service);
        events.retain(|line| line["event"] == event);
        events
    };
    // A service logs what it did after it is committed.
    wait_until(&format!("{event} is logged"), LIMIT, async || {
        Ok(!find().is_empty())
    })
    .await?;
    Ok(find())
}
