//! What is published.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::Context;

use super::topology;
use crate::buy_order_event::{BuyOrderCreated, CONTENT_TYPE, MESSAGE_TYPE};
use crate::trace_context::{TRACEPARENT, TRACESTATE, traceparent, tracestate};

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Properties and headers; the delivery mode is set to persistent when it is published.
    pub properties: BasicProperties,
    /// The body.
    pub body: Vec<u8>,
}

impl Outgoing {
    /// The event of a new order, as the design's wire format says, sent by the span of `trace`.
    ///
    /// # Errors
    /// None that is known; writing JSON is fallible by its signature.
    pub fn buy_order_created(
        exchange: &str,
        event: &BuyOrderCreated,
        trace: &Context,
    ) -> serde_json::Result<Self> {
        let mut headers = FieldTable::default();
        for (name, text) in [(TRACEPARENT, traceparent(trace)), (TRACESTATE, tracestate(trace))] {
            if let Some(text) = text {
                headers.insert(name.into(), AMQPValue::LongString(text.into()));
            }
        }
        Ok(Self {
            exchange: exchange.to_owned(),
            routing_key: topology::BUY_ORDER_QUEUE.to_owned(),
            properties: BasicProperties::default()
                .with_content_type(CONTENT_TYPE.into())
                .with_type(MESSAGE_TYPE.into())
                .with_message_id(event.external_id.to_string().into())
                .with_headers(headers),
            body: serde_json::to_vec(event)?,
        })
    }
}
