//! The spans of a message's way through the broker: names and attributes are those of OpenTelemetry's semantic conventions for RabbitMQ.

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use opentelemetry::{Context, KeyValue};

use super::{Event, topology};
use crate::trace;
use crate::trace_context::{TRACEPARENT, TRACESTATE, context_of};

/// Begins the span of publishing an event, as a part of `cause`.
#[must_use]
pub fn publish_span(exchange: &str, event: &Event, cause: &Context) -> Context {
    trace::start(cause, || {
        let message_id = event.message_id.to_string();
        describe("publish", "send", exchange, &event.routing_key, message_id).with_kind(SpanKind::Producer)
    })
}

/// Begins the span of processing a delivery, as a part of the trace that its headers name.
#[must_use]
pub fn process_span(exchange: &str, properties: &BasicProperties) -> Context {
    let cause = context_of(text(properties, TRACEPARENT), text(properties, TRACESTATE));
    trace::start(&cause, || {
        let message_id = properties.message_id().as_ref().map(ToString::to_string);
        let routing_key = topology::BUY_ORDER_QUEUE;
        describe(
            "process",
            "process",
            exchange,
            routing_key,
            message_id.unwrap_or_default(),
        )
        .with_kind(SpanKind::Consumer)
    })
}

fn text<'a>(properties: &'a BasicProperties, header: &str) -> Option<&'a str> {
    match properties.headers().as_ref()?.inner().get(header)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

fn describe(
    operation: &'static str,
    kind_of_operation: &'static str,
    exchange: &str,
    routing_key: &str,
    message_id: String,
) -> SpanBuilder {
    // Of three parts, the last of which, the name of the queue, is left out where it is that of the routing key.
    let destination = format!("{exchange}:{routing_key}");
    SpanBuilder::from_name(format!("{operation} {destination}")).with_attributes([
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", kind_of_operation),
        KeyValue::new("messaging.destination.name", destination),
        KeyValue::new(
            "messaging.rabbitmq.destination.routing_key",
            routing_key.to_owned(),
        ),
        KeyValue::new("messaging.message.id", message_id),
    ])
}
