//! The outlet to standard output: one JSON object a line.
//!
//! Not `tracing_subscriber::fmt`: beside its flattened fields it writes a `timestamp` and a `target` of its own, and events have fields of these names.

use std::fmt;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::context_fields::add_context;
use crate::timestamp::rfc3339_micros;

/// How long a line waits for others, to be written with them. Waking the thread that writes and calling the system for each costs more than
/// making the line: some 8 % of an order (measured).
const GATHERED_FOR: Duration = Duration::from_millis(2);

/// An outlet that rests after each flush, while lines gather.
pub(super) struct Gathering<W>(pub(super) W);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        thread::sleep(GATHERED_FOR);
        flushed
    }
}

pub(super) struct JsonLines {
    pub(super) service: &'static str,
    pub(super) lines: NonBlocking,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        // What the event does not say itself.
        line.add_missing("event", "information");
        line.add_missing("level", event.metadata().level().as_str());
        line.add_missing("service", self.service);
        line.add_missing("logged_at", rfc3339_micros(OffsetDateTime::now_utc()));
        add_context(event, |name, value| line.add_missing(name, value));
        // It takes or drops the line, and never fails.
        let _ = self.lines.clone().write_all(&line.finish());
    }
}

/// A JSON object on its way; the names that it has so far.
#[derive(Default)]
struct Line {
    text: Vec<u8>,
    names: Vec<&'static str>,
}

impl Line {
    fn add(&mut self, name: &'static str, value: impl Serialize) {
        self.text.push(if self.names.is_empty() { b'{' } else { b',' });
        self.names.push(name);
        // Writing to memory does not fail, and each value has a form in JSON.
        let _ = serde_json::to_writer(&mut self.text, name);
        self.text.push(b':');
        let _ = serde_json::to_writer(&mut self.text, &value);
    }

    fn add_missing(&mut self, name: &'static str, value: impl Serialize) {
        if !self.names.contains(&name) {
            self.add(name, value);
        }
    }

    fn insert(&mut self, field: &Field, value: impl Serialize) {
        let name = if field.name() == "message" {
            "text"
        } else {
            field.name()
        };
        self.add(name, value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.text.extend_from_slice(b"}\n");
        self.text
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_first_stays_and_is_escaped() -> serde_json::Result<()> {
        let mut line = Line::default();
        line.add("event", "a \"quoted\"\nname");
        line.add_missing("event", "information");
        line.add_missing("count", 7);
        let text = line.finish();
        assert_eq!(text.last(), Some(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&text)?;
        assert_eq!(value, json!({"event": "a \"quoted\"\nname", "count": 7}));
        Ok(())
    }
}
