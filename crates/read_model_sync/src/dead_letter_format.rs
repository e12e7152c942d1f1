//! What a dead letter looks like: the original message, with headers that say why and when it failed.

use common::broker::{Outgoing, topology};
use common::timestamp::rfc3339_micros;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;

// The headers that are added. Times are RFC 3339.
pub(crate) const REASON: &str = "x-reason";
/// It stays when an operator redrives the letter and it fails again.
pub(crate) const FIRST_FAILED_AT: &str = "x-first-failed-at";
pub(crate) const LAST_FAILED_AT: &str = "x-last-failed-at";
pub(crate) const ATTEMPTS: &str = "x-attempts";
pub(crate) const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
pub(crate) const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";
const FAILED_BY: &str = "x-failed-by";

// All headers of a message have to fit into one frame, unlike its body: the broker would refuse a letter with more, and its delivery would
// come again for ever. The frame may be small, so the limits are also fractions of it.
const MAX_REASON_BYTES: usize = 1000;
const MAX_ORIGINAL_HEADER_BYTES: usize = 64 * 1024;

/// Headers that are not copied: by the first two RabbitMQ would route a message to further queues, and the others count the deliveries of one
/// queue.
const DROPPED_HEADERS: [&str; 4] = ["CC", "BCC", "x-delivery-count", "x-acquired-count"];

/// The dead letter of a delivery of `queue`: same body, id, type and headers, with the reason added. Its headers fit into a frame of
/// `frame_max` bytes.
pub(crate) fn dead_letter(
    delivery: Delivery,
    exchange: &str,
    queue: &str,
    reason: &str,
    frame_max: usize,
) -> Outgoing {
    Outgoing {
        exchange: topology::dead_letter_name(exchange),
        routing_key: topology::dead_letter_name(queue),
        properties: kept_properties(&delivery.properties).with_headers(headers(&delivery, reason, frame_max)),
        body: delivery.data,
    }
}

/// The properties that a copy of a message keeps. An expiration would delete the copy, and the broker refuses the user id of another user.
pub(crate) fn kept_properties(original: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(value) = original.content_type().clone() {
        kept = kept.with_content_type(value);
    }
    if let Some(value) = original.content_encoding().clone() {
        kept = kept.with_content_encoding(value);
    }
    if let Some(value) = original.correlation_id().clone() {
        kept = kept.with_correlation_id(value);
    }
    if let Some(value) = original.message_id().clone() {
        kept = kept.with_message_id(value);
    }
    if let Some(value) = *original.timestamp() {
        kept = kept.with_timestamp(value);
    }
    if let Some(value) = original.kind().clone() {
        kept = kept.with_type(value);
    }
    if let Some(value) = original.app_id().clone() {
        kept = kept.with_app_id(value);
    }
    kept
}

fn headers(delivery: &Delivery, reason: &str, frame_max: usize) -> FieldTable {
    let mut headers = kept_headers(&delivery.properties, MAX_ORIGINAL_HEADER_BYTES.min(frame_max / 2));
    let now = rfc3339_micros(OffsetDateTime::now_utc());
    let attempts = attempts(&headers).saturating_add(1);
    let mut add = |name: &'static str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let end = reason.floor_char_boundary(MAX_REASON_BYTES.min(frame_max / 8));
    add(REASON, &reason[..end]);
    add(FAILED_BY, env!("CARGO_PKG_NAME"));
    add(ORIGINAL_EXCHANGE, delivery.exchange.as_str());
    add(ORIGINAL_ROUTING_KEY, delivery.routing_key.as_str());
    add(LAST_FAILED_AT, &now);
    if attempts == 1 {
        add(FIRST_FAILED_AT, &now);
    }
    headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(attempts));
    headers
}

/// The headers that a copy of a message keeps, in another queue or in the same one again, up to `max_bytes`.
pub(crate) fn kept_headers(original: &BasicProperties, max_bytes: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut bytes: usize = 0;
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        // The debug format of a value is longer than its encoding, so this rather counts too much.
        bytes = bytes.saturating_add(name.as_str().len() + format!("{value:?}").len());
        if bytes <= max_bytes && !DROPPED_HEADERS.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// How often a message with these headers has failed.
pub(crate) fn attempts(headers: &FieldTable) -> i64 {
    match headers.inner().get(ATTEMPTS) {
        _ if !headers.contains_key(FIRST_FAILED_AT) => 0,
        Some(AMQPValue::LongLongInt(attempts)) if *attempts > 0 => *attempts,
        // Written before attempts were counted.
        _ => 1,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use common::trace_context::TRACEPARENT;

    use super::*;
    use crate::delivery::tests::delivery;

    pub(crate) fn dead(properties: BasicProperties, body: &str, reason: &str) -> Outgoing {
        dead_letter(
            delivery(properties, body),
            "pydist",
            "buy_order",
            reason,
            128 * 1024,
        )
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
        let letter = dead(properties, "nonsense", "the body is no order");
        assert_eq!(letter.body, b"nonsense");
        assert_eq!(letter.exchange, "pydist.dead_letter");
        assert_eq!(letter.routing_key, "buy_order.dead_letter");
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
        let (first, last) = (text("2020-01-01T00:00:00Z"), text("2020-01-02T00:00:00Z"));
        let mut table = FieldTable::default();
        table.insert(FIRST_FAILED_AT.into(), first.clone());
        table.insert(REASON.into(), text("old"));
        table.insert(LAST_FAILED_AT.into(), last.clone());
        table.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(4));
        table.insert("CC".into(), text("elsewhere"));
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(7));
        table.insert(TRACEPARENT.into(), text("00-a-b-01"));
        let letter = dead(BasicProperties::default().with_headers(table), "", "new");
        assert_eq!(header(&letter, FIRST_FAILED_AT), Some(&first));
        assert_ne!(header(&letter, LAST_FAILED_AT), Some(&last));
        assert_eq!(header(&letter, ATTEMPTS), Some(&AMQPValue::LongLongInt(5)));
        assert_eq!(header(&letter, "x-delivery-count"), None);
        assert_eq!(header(&letter, REASON), Some(&text("new")));
        assert_eq!(header(&letter, TRACEPARENT), Some(&text("00-a-b-01")));
        assert_eq!(header(&letter, "CC"), None);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let letter = dead(BasicProperties::default(), "", &"é".repeat(2000));
        assert_eq!(header(&letter, REASON), Some(&text(&"é".repeat(500))));
    }

    #[test]
    fn the_headers_of_a_letter_fit_into_a_small_frame() {
        const SMALL_FRAME: usize = 8192;
        let mut table = FieldTable::default();
        for number in 0..100 {
            table.insert(format!("header {number}").into(), text(&"x".repeat(100)));
        }
        let letter = dead_letter(
            delivery(BasicProperties::default().with_headers(table), ""),
            "pydist",
            "buy_order",
            &"x".repeat(2000),
            SMALL_FRAME,
        );
        let headers = letter.properties.headers().clone().unwrap_or_default();
        let bytes: usize = headers
            .inner()
            .iter()
            .map(|(name, value)| match value {
                AMQPValue::LongString(text) => name.as_str().len() + text.as_bytes().len() + 6,
                _ => name.as_str().len() + 10,
            })
            .sum();
        assert!((2000..SMALL_FRAME - 2048).contains(&bytes), "{bytes}");
    }

    #[test]
    fn attempts_that_are_no_number_of_ours_are_no_panic() {
        for (attempts, counted) in [
            (AMQPValue::LongLongInt(i64::MAX), i64::MAX),
            (AMQPValue::LongLongInt(i64::MIN), 2),
            (AMQPValue::LongUInt(u32::MAX), 2),
            (text("many"), 2),
        ] {
            let mut table = FieldTable::default();
            table.insert(FIRST_FAILED_AT.into(), text("never"));
            table.insert(ATTEMPTS.into(), attempts);
            let properties = BasicProperties::default().with_headers(table);
            let letter = dead(properties, "", "");
            assert_eq!(header(&letter, ATTEMPTS), Some(&AMQPValue::LongLongInt(counted)));
        }
    }
}
