//! One dead letter: its id, its summary and description, and how it is redriven.

use common::broker::{Connector, Outgoing};
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
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
    match letter.properties.message_id() {
        Some(id) if !id.as_str().is_empty() => id.to_string(),
        // The precision is the number of hexadecimal digits.
        _ => format!("sha256:{:.16x}", Sha256::digest(&letter.data)),
    }
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
    lines.extend(line("message_id", properties.message_id()));
    lines.extend(line("type", properties.kind()));
    lines.extend(line("content_type", properties.content_type()));
    lines.extend(line("content_encoding", properties.content_encoding()));
    lines.extend(line("correlation_id", properties.correlation_id()));
    lines.extend(line("app_id", properties.app_id()));
    lines.extend(line("timestamp", properties.timestamp()));
    lines.extend(line("delivery_mode", properties.delivery_mode()));
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        let (name, value) = (printable(name.as_str()), printable(&shown_value(value)));
        lines.push(format!("header {name}: {value}"));
    }
    lines.push(format!("payload: {} bytes", letter.data.len()));
    lines.push(String::new());
    lines.push(payload(&letter.data));
    lines.join("\n") + "\n"
}

fn line(name: &str, value: &Option<impl ToString>) -> Option<String> {
    let value = printable(&value.as_ref()?.to_string());
    Some(format!("{name}: {value}"))
}

/// Plain text as it is, else with all bytes escaped that are not printable ASCII.
fn payload(body: &[u8]) -> String {
    let plain = |character: char| is_visible(character) || matches!(character, '\n' | '\t' | '\r');
    match std::str::from_utf8(body) {
        Ok(text) if text.chars().all(plain) => text.to_owned(),
        _ => body.escape_ascii().to_string(),
    }
}

/// The text in one line, with what a terminal would obey or hide escaped.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    shown
}

/// Whether a terminal shows a place of its own for it: no control character, none that turns the direction of writing or has no width.
fn is_visible(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || character.escape_debug().len() == 1
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
mod tests {
    use common::endpoints::Queue;
    use common::env::Env;
    use lapin::BasicProperties;

    use super::*;
    use crate::dead_letter_format::tests::dead;
    use crate::delivery::tests::delivery;

    /// A delivery from the dead-letter queue.
    fn dead_letter(properties: BasicProperties, body: &str) -> Delivery {
        delivery(dead(properties, body, "why").properties, body)
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
        assert_eq!(summary.kind.as_deref(), Some("buy_order_created"));
        assert_eq!(summary.bytes, 3);
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
        assert_eq!(back.exchange, "pydist");
        assert_eq!(back.routing_key, "buy_order");
        assert_eq!(back.body, b"abc");
        assert_eq!(back.properties.message_id(), &Some("m1".into()));
        let headers = back.properties.headers().clone().unwrap_or_default();
        assert_eq!(dead_letter_format::attempts(&headers), 1);

        let rejected_by_hand = redriven(&delivery(BasicProperties::default(), "abc"), &connector);
        assert_eq!(rejected_by_hand.exchange, "configured");
        assert_eq!(rejected_by_hand.routing_key, "buy_order");
    }

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        for hidden in [
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{200d}',
            '\u{feff}',
            '\u{ad}',
            '\u{2028}',
            '\u{e0041}',
        ] {
            assert_eq!(
                printable(&format!("a{hidden}b")),
                format!("a{}b", hidden.escape_unicode())
            );
            assert!(payload(format!("a{hidden}b").as_bytes()).is_ascii());
        }
        assert_eq!(printable("ä \"Ж\" '漢' \\ €"), "ä \"Ж\" '漢' \\ €");
        assert_eq!(payload("{\"a\": \"ä\"}".as_bytes()), "{\"a\": \"ä\"}");
        assert_eq!(payload(b"{\n \"a\": 1}"), "{\n \"a\": 1}");
        assert_eq!(payload(b"\x1b[2J"), "\\x1b[2J");
        assert_eq!(payload(&[0xff, b'a']), "\\xffa");
    }
}
