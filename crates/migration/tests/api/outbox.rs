//! The messages of the outbox.

use common::buy_order_event::BuyOrderCreated;
use uuid::Uuid;

/// A message as it is sent. The row has an id and a time besides.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Message {
    r#type: String,
    routing_key: String,
    message_id: Uuid,
    payload: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Message {
    /// The message of a new order.
    pub(crate) fn created(
        order: &BuyOrderCreated,
        traceparent: Option<String>,
        tracestate: Option<String>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            r#type: "buy_order_created".to_owned(),
            routing_key: "buy_order".to_owned(),
            message_id: order.external_id,
            payload: serde_json::to_string(order)?,
            traceparent,
            tracestate,
        })
    }
}
