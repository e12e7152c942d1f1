//! The messages that are published.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::Context;
use time::OffsetDateTime;
use uuid::Uuid;

use super::topology::short;
use crate::trace_context::{TRACEPARENT, TRACESTATE, traceparent, tracestate};

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Properties and headers; the publisher sets the delivery mode to persistent.
    pub properties: BasicProperties,
    /// The body.
    pub body: Vec<u8>,
}

/// An event as the outbox stores it, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The kind of the event: the property `type`.
    pub kind: String,
    /// The routing key, which is the name of the queue.
    pub routing_key: String,
    /// The property `message_id`, the same each time the event is sent.
    pub message_id: Uuid,
    /// The body, JSON.
    pub payload: String,
    /// When it happened: the property `timestamp`, in whole seconds.
    pub created_at: OffsetDateTime,
}

crate::from_row!(Event { kind = "type", routing_key, message_id, payload, created_at });

impl Outgoing {
    /// The message of an event that the service `app_id` sends. Its headers carry the trace context of `trace`.
    #[must_use]
    pub fn event(exchange: &str, app_id: &str, event: &Event, trace: &Context) -> Self {
        let mut headers = FieldTable::default();
        for (name, text) in [(TRACEPARENT, traceparent(trace)), (TRACESTATE, tracestate(trace))] {
            if let Some(text) = text {
                headers.insert(name.into(), AMQPValue::LongString(text.into()));
            }
        }
        Self {
            exchange: exchange.to_owned(),
            routing_key: event.routing_key.clone(),
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_type(short(&event.kind))
                .with_message_id(event.message_id.to_string().into())
                .with_app_id(short(app_id))
                // AMQP has no time before 1970.
                .with_timestamp(event.created_at.unix_timestamp().try_into().unwrap_or_default())
                .with_headers(headers),
            body: event.payload.clone().into_bytes(),
        }
    }
}
