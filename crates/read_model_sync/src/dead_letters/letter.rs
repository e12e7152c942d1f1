//! One dead letter: its id, its summary and description, and how it is redriven.

use std::fmt::Write as _;

use common::broker::{Connector, Outgoing};
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::dead_letter_format::{
    self, FIRST_FAILED_AT, LAST_FAILED_AT, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, REASON,
};

/// RabbitMQ's own headers, on a message that an operator rejected by hand.
const FIRST_DEATH_REASON: &str = "x-first-death-reason";
const FIRST_DEATH_EXCHANGE: &str = "x-first-death-exchange";

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) reason: Option<String>,
    pub(super) first_failed_at: Option<String>,
    pub(super) last_failed_at: Option<String>,
    pub(super) attempts: i64,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) bytes: usize,
}

impl Summary {
    pub(super) fn of(letter: &Delivery) -> Self {
        let headers = letter.properties.headers().clone().unwrap_or_default();
        Self {
            id: id(letter),
            reason: text(&headers, REASON).or_else(|| text(&headers, FIRST_DEATH_REASON)),
            first_failed_at: text(&headers, FIRST_FAILED_AT),
            last_failed_at: text(&headers, LAST_FAILED_AT),
            attempts: dead_letter_format::attempts(&headers),
            kind: letter.properties.kind().as_ref().map(ToString::to_string),
            bytes: letter.data.len(),
        }
    }
}

/// The message id, or a digest of the body if there is none.
pub(super) fn id(letter: &Delivery) -> String {
    const DIGEST_BYTES: usize = 8;
    if let Some(id) = letter
        .properties
        .message_id()
        .as_ref()
        .filter(|id| !id.as_str().is_empty())
    {
        return id.to_string();
    }
    let digest = Sha256::digest(&letter.data);
    digest
        .iter()
        .take(DIGEST_BYTES)
        .fold("sha256:".to_owned(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}"); // writing to a String cannot fail
            id
        })
}

/// The message that goes back to where the letter came from: same id, properties, headers and body.
pub(super) fn redriven(letter: &Delivery, connector: &Connector) -> Outgoing {
    let headers = dead_letter_format::kept_headers(&letter.properties, usize::MAX);
    let exchange = text(&headers, ORIGINAL_EXCHANGE)
        .or_else(|| text(&headers, FIRST_DEATH_EXCHANGE))
        .unwrap_or_else(|| connector.endpoint.exchange.clone());
    let routing_key = text(&headers, ORIGINAL_ROUTING_KEY).unwrap_or_else(|| connector.queue.to_owned());
    Outgoing {
        exchange,
        routing_key,
        properties: dead_letter_format::kept_properties(&letter.properties).with_headers(headers),
        body: letter.data.clone(),
    }
}

/// Everything that a letter contains, as text.
pub(super) fn describe(letter: &Delivery) -> String {
    let properties = &letter.properties;
    let mut lines = vec![format!("id: {}", printable(&id(letter)))];
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name}: {}", printable(&value))));
    };
    let shown = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    add("message_id", shown(properties.message_id()));
    add("type", shown(properties.kind()));
    add("content_type", shown(properties.content_type()));
    add("content_encoding", shown(properties.content_encoding()));
    add("correlation_id", shown(properties.correlation_id()));
    add("app_id", shown(properties.app_id()));
    add("timestamp", properties.timestamp().map(|time| time.to_string()));
    add(
        "delivery_mode",
        properties.delivery_mode().map(|mode| mode.to_string()),
    );
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        add(
            &format!("header {}", printable(name.as_str())),
            Some(shown_value(value)),
        );
    }
    lines.push(format!("payload: {} bytes", letter.data.len()));
    lines.push(String::new());
    lines.push(payload(&letter.data));
    lines.join("\n") + "\n"
}

/// Plain text as it is, else with all bytes escaped that are not printable: a terminal must not execute control sequences.
fn payload(body: &[u8]) -> String {
    let plain = |character: char| !character.is_control() || matches!(character, '\n' | '\t' | '\r');
    match std::str::from_utf8(body) {
        Ok(text) if text.chars().all(plain) => text.to_owned(),
        _ => body.escape_ascii().to_string(),
    }
}

/// The text in one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                character.escape_default().to_string()
            } else {
                character.to_string()
            }
        })
        .collect()
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    headers.inner().get(name).map(shown_value)
}

fn shown_value(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use common::endpoints::Queue;
    use common::env::Env;
    use lapin::BasicProperties;

    use super::*;
    use crate::delivery::tests::delivery;

    /// A delivery from the dead-letter queue.
    fn dead_letter(properties: BasicProperties, body: &str) -> Delivery {
        let original = delivery(properties, body);
        let letter = dead_letter_format::dead_letter(original, "pydist", "buy_order", "why", 128 * 1024);
        delivery(letter.properties, body)
    }

    #[test]
    fn the_id_of_a_letter_is_its_message_id_or_a_digest_of_its_body() {
        let with_id = BasicProperties::default().with_message_id("m1".into());
        assert_eq!(id(&delivery(with_id, "abc")), "m1");
        for none in [
            BasicProperties::default(),
            BasicProperties::default().with_message_id("".into()),
        ] {
            assert_eq!(id(&delivery(none, "abc")), "sha256:ba7816bf8f01cfea");
        }
    }

    #[test]
    fn the_summary_tells_what_the_headers_say() {
        let properties = BasicProperties::default().with_type("buy_order_created".into());
        let summary = Summary::of(&dead_letter(properties, "abc"));
        assert_eq!(summary.reason.as_deref(), Some("why"));
        assert_eq!(summary.attempts, 1);
        assert!(summary.first_failed_at.is_some() && summary.first_failed_at == summary.last_failed_at);
        assert_eq!(
            (summary.kind.as_deref(), summary.bytes),
            (Some("buy_order_created"), 3)
        );
    }

    #[test]
    fn a_redriven_letter_is_the_message_and_counts_its_failures() {
        let connector = Connector {
            endpoint: Queue::from_env(&mut Env::from_pairs([("Q_EXCHANGE", "configured")])),
            queue: "buy_order",
            name: "test",
        };
        let letter = dead_letter(BasicProperties::default().with_message_id("m1".into()), "abc");
        let back = redriven(&letter, &connector);
        assert_eq!(
            (
                back.exchange.as_str(),
                back.routing_key.as_str(),
                back.body.as_slice()
            ),
            ("pydist", "buy_order", b"abc".as_slice())
        );
        assert_eq!(back.properties.message_id(), &Some("m1".into()));
        assert_eq!(
            dead_letter_format::attempts(back.properties.headers().as_ref().unwrap()),
            1
        );

        let rejected_by_hand = redriven(&delivery(BasicProperties::default(), "abc"), &connector);
        assert_eq!(
            (
                rejected_by_hand.exchange.as_str(),
                rejected_by_hand.routing_key.as_str()
            ),
            ("configured", "buy_order")
        );
    }

    #[test]
    fn no_control_character_is_shown() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(payload(b"{\n \"a\": 1}"), "{\n \"a\": 1}");
        assert_eq!(payload(b"\x1b[2J"), "\\x1b[2J");
        assert_eq!(payload(&[0xff, b'a']), "\\xffa");
    }
}
