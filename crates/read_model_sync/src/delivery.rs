//! What a delivery says, what can become of it, and how it is laid aside when it can never be applied.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::broker::{Outgoing, topology};
use common::buy_order_event::{self, BuyOrderCreated};
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
/// Both limits are parts of a frame as well, for a broker that is set to small ones.
const LONGEST_REASON: usize = 1000;

/// Of the original headers no more are kept.
const MOST_HEADER_BYTES: usize = 64 * 1024;

/// A longer body is not even parsed: an event is some 300 bytes.
const LONGEST_BODY: usize = 64 * 1024;

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
pub struct Message {
    /// As it came.
    pub delivery: Delivery,
    /// What it says.
    pub order: BuyOrderCreated,
    /// The trace of its order, and the span that processes it, which ends with the message.
    pub trace: Context,
}

impl Message {
    /// Reads a delivery, which is processed in the span of `trace`.
    ///
    /// # Errors
    /// The delivery, and why it says nothing that this service understands.
    #[expect(
        clippy::result_large_err,
        reason = "the delivery itself, which is as large where it could be read"
    )]
    pub fn read(delivery: Delivery, trace: Context) -> Result<Self, (Delivery, String)> {
        match without_panic(|| read(&delivery)) {
            Ok(order) => Ok(Self {
                delivery,
                order,
                trace,
            }),
            Err(reason) => Err((delivery, reason)),
        }
    }

    /// The event of an order that is now in the read model.
    pub fn report_applied(&self) {
        let _in_its_trace = self.trace.clone().attach();
        tracing::info!(event = "buy_order_read_model_synced", id = self.order.id);
    }
}

/// By its type: another kind of event is another arm. The original sends no type with its orders.
fn read(delivery: &Delivery) -> Result<BuyOrderCreated, String> {
    let body = &delivery.data;
    if body.len() > LONGEST_BODY {
        return Err(format!(
            "the body has {} bytes, more than {LONGEST_BODY}",
            body.len()
        ));
    }
    match delivery.properties.kind().as_ref().map(|kind| kind.as_str()) {
        None | Some("" | buy_order_event::MESSAGE_TYPE) => {
            serde_json::from_slice(body).map_err(|error| format!("the body is no order: {error}"))
        }
        Some(other) => Err(format!("messages of the type {other:?} are not known here")),
    }
}

/// A message that makes our code panic would come again and again, and nothing after it would ever be applied.
fn without_panic<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // Nothing is left half done: what was read so far is dropped.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(reason_of(&*panic)))
}

/// The reason of a dead letter that made our code panic.
pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("our code panicked: {}", text.unwrap_or("without a message"))
}

/// The message that takes the place of a delivery among the dead letters: same body, id, type and headers, with the reason added. Its headers
/// fit into a frame of `frame_max` bytes.
#[must_use]
pub fn dead_letter(delivery: Delivery, exchange: &str, reason: &str, frame_max: usize) -> Outgoing {
    Outgoing {
        exchange: topology::dead_letter_exchange(exchange),
        routing_key: topology::DEAD_LETTER_QUEUE.to_owned(),
        properties: kept_properties(&delivery.properties).with_headers(headers(&delivery, reason, frame_max)),
        body: delivery.data,
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

fn headers(delivery: &Delivery, reason: &str, frame_max: usize) -> FieldTable {
    let mut headers = kept_headers(&delivery.properties, MOST_HEADER_BYTES.min(frame_max / 2));
    let now = rfc3339_micros(OffsetDateTime::now_utc());
    let attempts = attempts(&headers);
    let mut add = |name: &'static str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let end = reason.floor_char_boundary(LONGEST_REASON.min(frame_max / 8));
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

/// The headers that a copy of a message carries on, in another queue or in the same one again: no more than so many bytes of them.
pub(crate) fn kept_headers(original: &BasicProperties, most_bytes: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut bytes: usize = 0;
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        // Written for people a value is longer than on the wire, so this counts too much rather than too little.
        bytes = bytes.saturating_add(name.as_str().len() + format!("{value:?}").len());
        if bytes <= most_bytes && !DROPPED_HEADERS.contains(&name.as_str()) {
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

    const FRAME_MAX: usize = 128 * 1024;

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
            delivery(properties, "nonsense"),
            "pydist",
            "the body is no order",
            FRAME_MAX,
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
            delivery(BasicProperties::default().with_headers(table), ""),
            "pydist",
            "new",
            FRAME_MAX,
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
            delivery(BasicProperties::default(), ""),
            "pydist",
            &"é".repeat(2000),
            FRAME_MAX,
        );
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
            let letter = dead_letter(delivery(properties, ""), "pydist", "", FRAME_MAX);
            assert_eq!(header(&letter, ATTEMPTS), Some(&AMQPValue::LongLongInt(counted)));
        }
    }

    #[test]
    fn a_panic_is_a_reason() {
        let reason = without_panic(|| -> Result<(), String> { panic!("index {} is out of range", 7) });
        assert_eq!(
            reason,
            Err("our code panicked: index 7 is out of range".to_owned())
        );
        assert_eq!(without_panic(|| Ok(1)), Ok(1));
    }

    #[test]
    fn a_message_is_read_by_its_type() {
        const ORDER: &str = r#"{"id":1,"client_id":1,"external_id":"3b14efb6-041f-4d31-b35a-37c82333af36",
            "created_at":"2026-11-23T15:37:32.531853Z","currency_id":1,"currency_iso3":"USD","currency_amount":"123.45",
            "btc_rate":"48478.88","btc_amount":"0.00254647"}"#;
        let read_as = |kind: Option<&str>| {
            let properties = BasicProperties::default();
            let properties = match kind {
                Some(kind) => properties.with_type(kind.into()),
                None => properties,
            };
            read(&delivery(properties, ORDER)).map(|order| order.id)
        };
        assert_eq!(read_as(None), Ok(1), "as the original sends it");
        assert_eq!(read_as(Some("")), Ok(1));
        assert_eq!(read_as(Some("buy_order_created")), Ok(1));
        assert_eq!(
            read_as(Some("buy_order_voided")),
            Err("messages of the type \"buy_order_voided\" are not known here".to_owned())
        );
    }

    #[test]
    fn a_body_beyond_its_limit_is_not_parsed() {
        let body = " ".repeat(LONGEST_BODY + 1);
        let reason = read(&delivery(BasicProperties::default(), &body));
        assert_eq!(
            reason.map(drop),
            Err("the body has 65537 bytes, more than 65536".to_owned())
        );
    }
}
