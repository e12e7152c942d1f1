//! The spans of a message's way through the broker: names and attributes are those of OpenTelemetry's semantic conventions for RabbitMQ.

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue};

use super::topology;
use crate::trace;
use crate::trace_context::{TRACEPARENT, context_of};

/// Begins the span of publishing the event of an order, as a part of `cause`.
#[must_use]
pub fn publish_span(exchange: &str, message_id: String, cause: &Context) -> Context {
    span("publish", "send", SpanKind::Producer, exchange, message_id, cause)
}

/// Begins the span of processing a delivery, as a part of the trace that its header names.
#[must_use]
pub fn process_span(exchange: &str, properties: &BasicProperties) -> Context {
    let message_id = properties.message_id().as_ref().map(ToString::to_string);
    let cause = context_of(traceparent(properties));
    let message_id = message_id.unwrap_or_default();
    span(
        "process",
        "process",
        SpanKind::Consumer,
        exchange,
        message_id,
        &cause,
    )
}

fn traceparent(properties: &BasicProperties) -> Option<&str> {
    match properties.headers().as_ref()?.inner().get(TRACEPARENT)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

fn span(
    operation: &'static str,
    operation_type: &'static str,
    kind: SpanKind,
    exchange: &str,
    message_id: String,
    cause: &Context,
) -> Context {
    // Of three parts, the last of which, the name of the queue, is left out where it is that of the routing key.
    let destination = format!("{exchange}:{}", topology::BUY_ORDER_QUEUE);
    let name = format!("{operation} {destination}");
    let attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation_type),
        KeyValue::new("messaging.destination.name", destination),
        KeyValue::new(
            "messaging.rabbitmq.destination.routing_key",
            topology::BUY_ORDER_QUEUE,
        ),
        KeyValue::new("messaging.message.id", message_id),
    ];
    trace::start(name, kind, cause, attributes)
}
