//! What a delivery says, what can become of it, and how it is laid aside when it can never be applied.

use common::broker::{Outgoing, topology};
use common::buy_order_event::BuyOrderCreated;
use common::timestamp::rfc3339_micros;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::Context;
use time::OffsetDateTime;

/// Why it is a dead letter.
pub const REASON: &str = "x-reason";

/// When it was first laid aside: stays when an operator sends it round again and it fails again. RFC 3339.
pub const FIRST_FAILED_AT: &str = "x-first-failed-at";

/// When it was last laid aside. RFC 3339.
pub const LAST_FAILED_AT: &str = "x-last-failed-at";

/// How often it was laid aside.
pub const ATTEMPTS: &str = "x-attempts";

/// The exchange that it came from.
pub const ORIGINAL_EXCHANGE: &str = "x-original-exchange";

/// The routing key that it came with.
pub const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";

const FAILED_BY: &str = "x-failed-by";

/// Headers travel in one frame, beside a body of any size: a letter whose headers do not fit would never leave, and its delivery come
/// again for ever.
const LONGEST_REASON: usize = 1000;

/// Of the original headers no more are kept: half a frame.
const MOST_HEADER_BYTES: usize = 64 * 1024;

/// Headers that are not copied: by the first two RabbitMQ would send a message to further queues, and with the others it counts the
/// deliveries from one queue.
const DROPPED_HEADERS: [&str; 4] = ["CC", "BCC", "x-delivery-count", "x-acquired-count"];

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its order is now in the read model.
    Applied,
    /// Its order was there, the same in every field: a repeated delivery.
    AlreadyApplied,
    /// Not applied, for a reason that will pass: try again.
    Transient(String),
    /// It can never be applied, and why.
    Permanent(String),
}

/// A delivery that could be read.
#[derive(Debug)]
pub struct Message<'a> {
    /// As it came.
    pub delivery: &'a Delivery,
    /// What it says.
    pub order: BuyOrderCreated,
    /// The trace of its order, and the span that processes it, which ends with the message.
    pub trace: Context,
}

impl<'a> Message<'a> {
    /// Reads a delivery, which is processed in the span of `trace`.
    ///
    /// # Errors
    /// Why it says nothing that this service understands.
    pub fn read(delivery: &'a Delivery, trace: &Context) -> Result<Self, String> {
        match serde_json::from_slice(&delivery.data) {
            Ok(order) => Ok(Self {
                delivery,
                order,
                trace: trace.clone(),
            }),
            Err(error) => Err(format!("the body is no order: {error}")),
        }
    }

    /// The event of an order that is now in the read model.
    pub fn report_applied(&self) {
        let _in_its_trace = self.trace.clone().attach();
        tracing::info!(event = "buy_order_read_model_synced", id = self.order.id);
    }
}

/// The message that takes the place of a delivery among the dead letters: same body, id, type and headers, with the reason added.
#[must_use]
pub fn dead_letter(delivery: &Delivery, exchange: &str, reason: &str) -> Outgoing {
    Outgoing {
        exchange: topology::dead_letter_exchange(exchange),
        routing_key: topology::DEAD_LETTER_QUEUE.to_owned(),
        properties: kept_properties(&delivery.properties).with_headers(headers(delivery, reason)),
        body: delivery.data.clone(),
    }
}

/// Not all of them: an expiration would drop the letter, and the broker refuses a user id that is not ours.
pub(crate) fn kept_properties(original: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(content_type) = original.content_type().clone() {
        kept = kept.with_content_type(content_type);
    }
    if let Some(encoding) = original.content_encoding().clone() {
        kept = kept.with_content_encoding(encoding);
    }
    if let Some(correlation_id) = original.correlation_id().clone() {
        kept = kept.with_correlation_id(correlation_id);
    }
    if let Some(message_id) = original.message_id().clone() {
        kept = kept.with_message_id(message_id);
    }
    if let Some(timestamp) = *original.timestamp() {
        kept = kept.with_timestamp(timestamp);
    }
    if let Some(kind) = original.kind().clone() {
        kept = kept.with_type(kind);
    }
    if let Some(app_id) = original.app_id().clone() {
        kept = kept.with_app_id(app_id);
    }
    kept
}

fn headers(delivery: &Delivery, reason: &str) -> FieldTable {
    let mut headers = kept_headers(&delivery.properties);
    let now = rfc3339_micros(OffsetDateTime::now_utc());
    let attempts = attempts(&headers);
    let mut add = |name: &'static str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let end = reason.floor_char_boundary(LONGEST_REASON);
    add(REASON, &reason[..end]);
    add(FAILED_BY, env!("CARGO_PKG_NAME"));
    add(ORIGINAL_EXCHANGE, delivery.exchange.as_str());
    add(ORIGINAL_ROUTING_KEY, delivery.routing_key.as_str());
    add(LAST_FAILED_AT, &now);
    if attempts == 0 {
        add(FIRST_FAILED_AT, &now);
    }
    headers.insert(
        ATTEMPTS.into(),
        AMQPValue::LongLongInt(attempts.saturating_add(1)),
    );
    headers
}

/// The headers that a copy of a message carries on, in another queue or in the same one again.
pub(crate) fn kept_headers(original: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut bytes: usize = 0;
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        // Written for people a value is longer than on the wire, so this counts too much rather than too little.
        bytes = bytes.saturating_add(name.as_str().len() + format!("{value:?}").len());
        if bytes <= MOST_HEADER_BYTES && !DROPPED_HEADERS.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// How often a message with these headers was laid aside.
pub(crate) fn attempts(headers: &FieldTable) -> i64 {
    match (
        headers.inner().get(FIRST_FAILED_AT),
        headers.inner().get(ATTEMPTS),
    ) {
        (None, _) => 0,
        (Some(_), Some(AMQPValue::LongLongInt(attempts))) if *attempts > 0 => *attempts,
        // Laid aside before attempts were counted.
        (Some(_), _) => 1,
    }
}

#[cfg(test)]
mod tests {
    use common::trace_context::TRACEPARENT;

    use super::*;

    fn delivery(properties: BasicProperties, body: &str) -> Delivery {
        let mut delivery = Delivery::mock(
            1,
            "pydist".into(),
            "buy_order".into(),
            false,
            body.as_bytes().to_vec(),
        );
        delivery.properties = properties;
        delivery
    }

    fn header<'a>(letter: &'a Outgoing, name: &str) -> Option<&'a AMQPValue> {
        letter.properties.headers().as_ref()?.inner().get(name)
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn a_dead_letter_keeps_body_and_message_id_and_tells_its_reason() {
        let properties = BasicProperties::default()
            .with_message_id("m1".into())
            .with_expiration("10".into());
        let letter = dead_letter(
            &delivery(properties, "nonsense"),
            "pydist",
            "the body is no order",
        );
        assert_eq!(letter.body, b"nonsense");
        assert_eq!(letter.exchange, "pydist.dead_letter");
        assert_eq!(letter.properties.message_id(), &Some("m1".into()));
        assert_eq!(letter.properties.expiration(), &None);
        assert_eq!(header(&letter, REASON), Some(&text("the body is no order")));
        assert_eq!(header(&letter, ORIGINAL_ROUTING_KEY), Some(&text("buy_order")));
        assert!(header(&letter, FIRST_FAILED_AT).is_some());
        assert_eq!(header(&letter, LAST_FAILED_AT), header(&letter, FIRST_FAILED_AT));
        assert_eq!(header(&letter, ATTEMPTS), Some(&AMQPValue::LongLongInt(1)));
    }

    #[test]
    fn a_letter_that_fails_again_keeps_its_first_failure_and_tells_of_its_last() {
        let mut table = FieldTable::default();
        table.insert(FIRST_FAILED_AT.into(), text("2020-01-01T00:00:00Z"));
        table.insert(REASON.into(), text("old"));
        table.insert(LAST_FAILED_AT.into(), text("2020-01-02T00:00:00Z"));
        table.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(4));
        table.insert("CC".into(), text("elsewhere"));
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(7));
        table.insert(TRACEPARENT.into(), text("00-a-b-01"));
        let letter = dead_letter(
            &delivery(BasicProperties::default().with_headers(table), ""),
            "pydist",
            "new",
        );
        assert_eq!(
            header(&letter, FIRST_FAILED_AT),
            Some(&text("2020-01-01T00:00:00Z"))
        );
        assert_ne!(
            header(&letter, LAST_FAILED_AT),
            Some(&text("2020-01-02T00:00:00Z"))
        );
        assert_eq!(header(&letter, ATTEMPTS), Some(&AMQPValue::LongLongInt(5)));
        assert_eq!(header(&letter, "x-delivery-count"), None);
        assert_eq!(header(&letter, REASON), Some(&text("new")));
        assert_eq!(header(&letter, TRACEPARENT), Some(&text("00-a-b-01")));
        assert_eq!(header(&letter, "CC"), None);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let letter = dead_letter(
            &delivery(BasicProperties::default(), ""),
            "pydist",
            &"é".repeat(2000),
        );
        assert_eq!(header(&letter, REASON), Some(&text(&"é".repeat(500))));
    }
}
