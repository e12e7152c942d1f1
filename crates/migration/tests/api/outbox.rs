//! The messages of the outbox.

use common::buy_order_event::BuyOrderCreated;
use common::timestamp::rfc3339_micros;
use time::OffsetDateTime;
use uuid::Uuid;

/// A message as it is sent. The row has an id and a time besides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    r#type: String,
    routing_key: String,
    message_id: Uuid,
    payload: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

common::from_row!(Message { r#type = "type", routing_key, message_id, payload, traceparent, tracestate });

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

    /// The message of a voided order.
    pub(crate) fn voided(
        message_id: Uuid,
        order: &BuyOrderCreated,
        reason: &str,
        voided_at: OffsetDateTime,
    ) -> Self {
        let (id, external_id) = (order.id, order.external_id);
        let (reason, voided_at) = (serde_json::json!(reason), rfc3339_micros(voided_at));
        let payload = format!(
            r#"{{"id":{id},"external_id":"{external_id}","reason":{reason},"voided_at":"{voided_at}"}}"#
        );
        Self {
            r#type: "buy_order_voided".to_owned(),
            routing_key: "buy_order".to_owned(),
            message_id,
            payload,
            traceparent: None,
            tracestate: None,
        }
    }

    pub(crate) fn is_of_a_void(&self) -> bool {
        self.r#type == "buy_order_voided"
    }
}
