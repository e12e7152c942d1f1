//! What a delivery says, and what can become of it.

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::buy_order_event::{BuyOrderCreated, BuyOrderVoided};
use lapin::message::Delivery;
use opentelemetry::Context;

/// A longer body is not parsed: an event has some 300 bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The outcome of applying a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// What it says is now in the read model.
    Applied,
    /// That was there with the same values: a repeated delivery.
    AlreadyApplied,
    /// Not applied, for a reason that will pass: retry.
    Transient(String),
    /// It can never be applied, and why.
    Permanent(String),
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// An order was created.
    Created(BuyOrderCreated),
    /// An order was voided.
    Voided(BuyOrderVoided),
}

impl Event {
    /// The id of the order.
    pub(crate) fn order_id(&self) -> i64 {
        match self {
            Self::Created(order) => order.id,
            Self::Voided(void) => void.id,
        }
    }
}

/// A delivery whose body could be read.
pub(crate) struct Message {
    pub(crate) delivery: Delivery,
    pub(crate) event: Event,
    /// The span of processing it, in the trace of its order. It ends when the message is dropped.
    pub(crate) trace: Context,
}

/// Reads the body by the type of the message. The original sends its orders without a type.
///
/// # Errors
/// Why this service cannot read it.
pub(crate) fn read(delivery: &Delivery) -> Result<Event, String> {
    let body = &delivery.data;
    if body.len() > MAX_BODY_BYTES {
        return Err(format!(
            "the body has {} bytes, more than {MAX_BODY_BYTES}",
            body.len()
        ));
    }
    match delivery.properties.kind().as_ref().map(|kind| kind.as_str()) {
        None | Some("" | BuyOrderCreated::MESSAGE_TYPE) => serde_json::from_slice(body)
            .map(Event::Created)
            .map_err(|error| format!("the body is no order: {error}")),
        Some(BuyOrderVoided::MESSAGE_TYPE) => serde_json::from_slice(body)
            .map(Event::Voided)
            .map_err(|error| format!("the body is no void: {error}")),
        Some(other) => Err(format!("messages of the type {other:?} are not known here")),
    }
}

/// Without this, a message that makes our code panic would be delivered again and again, and nothing after it would ever be applied.
pub(crate) fn without_panic<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // Unwind safe: what was read before the panic is dropped.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(reason_of(&*panic)))
}

/// The reason of a dead letter that made our code panic.
pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("our code panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use lapin::BasicProperties;

    use super::*;

    /// A delivery of the queue of orders, as a mock.
    pub(crate) fn delivery(properties: BasicProperties, body: &str) -> Delivery {
        let mut delivery = Delivery::mock(1, "pydist".into(), "buy_order".into(), false, body.into());
        delivery.properties = properties;
        delivery
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
        const VOID: &str = r#"{"id":1,"external_id":"3b14efb6-041f-4d31-b35a-37c82333af36","reason":"fat finger",
            "voided_at":"2026-11-28T15:37:32.531850Z"}"#;
        let order: Event = Event::Created(serde_json::from_str(ORDER).unwrap());
        let void: Event = Event::Voided(serde_json::from_str(VOID).unwrap());
        let read_as =
            |kind: &str, body| read(&delivery(BasicProperties::default().with_type(kind.into()), body));
        let untyped = read(&delivery(BasicProperties::default(), ORDER));
        assert_eq!(untyped, Ok(order.clone()), "as the original sends it");
        assert_eq!(read_as("", ORDER), Ok(order.clone()));
        assert_eq!(read_as("buy_order_created", ORDER), Ok(order));
        assert_eq!(read_as("buy_order_voided", VOID), Ok(void));
        for (kind, body, reason) in [
            (
                "buy_order_voided",
                ORDER,
                "the body is no void: missing field `reason`",
            ),
            (
                "buy_order_created",
                VOID,
                "the body is no order: missing field `client_id`",
            ),
            (
                "buy_order_noted",
                ORDER,
                "messages of the type \"buy_order_noted\" are not known here",
            ),
        ] {
            let refused = read_as(kind, body).unwrap_err();
            assert!(refused.starts_with(reason), "{refused}");
        }
    }

    #[test]
    fn a_body_beyond_its_limit_is_not_parsed() {
        let body = " ".repeat(MAX_BODY_BYTES + 1);
        let reason = read(&delivery(BasicProperties::default(), &body));
        assert_eq!(
            reason.map(drop),
            Err("the body has 65537 bytes, more than 65536".to_owned())
        );
    }
}
