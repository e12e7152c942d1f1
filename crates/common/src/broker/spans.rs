//! The spans of publishing and processing. Names and attributes follow OpenTelemetry's semantic conventions for RabbitMQ.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use opentelemetry::{Context, KeyValue};

use super::Event;
use crate::endpoints::Queue;
use crate::trace;
use crate::trace_context::{TRACEPARENT, TRACESTATE, context_of};

/// Begins the span of publishing an event to this broker, a child of `cause`.
#[must_use]
pub fn publish_span(broker: &Queue, event: &Event, cause: &Context) -> Context {
    trace::start(cause, || {
        let (destination, message_id) = (
            (broker.exchange.as_str(), event.routing_key.as_str()),
            event.message_id.to_string(),
        );
        describe("publish", "send", broker, destination, message_id).with_kind(SpanKind::Producer)
    })
}

/// Begins the span of processing a delivery of this queue, in the trace that its headers name.
#[must_use]
pub fn process_span(broker: &Queue, delivery: &Delivery, queue: &str) -> Context {
    let properties = &delivery.properties;
    let cause = context_of(text(properties, TRACEPARENT), text(properties, TRACESTATE));
    trace::start(&cause, || {
        let message_id = properties.message_id().as_ref().map(ToString::to_string);
        let destination = (delivery.exchange.as_str(), queue);
        describe(
            "process",
            "process",
            broker,
            destination,
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
    broker: &Queue,
    (exchange, routing_key): (&str, &str),
    message_id: String,
) -> SpanBuilder {
    // The conventions add the queue's name only where it differs from the routing key.
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
        KeyValue::new("server.address", broker.host.clone()),
        KeyValue::new("server.port", i64::from(broker.port)),
    ])
}
