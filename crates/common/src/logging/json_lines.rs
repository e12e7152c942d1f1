//! The outlet to standard output: one JSON object per line.
//!
//! `tracing_subscriber::fmt` is not used because it adds fields `timestamp` and `target`, and events have fields of these names.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::fields::{Encoder, Fields};
use crate::timestamp::rfc3339_micros;

/// Pause after each flush. Lines that come meanwhile are written by one system call. To wake the writing thread for each line would cost
/// more than to make the line: about 8 % of an order (measured).
const BATCH_TIME: Duration = Duration::from_millis(2);

/// A writer that pauses after each flush, so that lines are written in batches.
pub(super) struct BatchingWriter<W>(pub(super) W);

impl<W: Write> Write for BatchingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        thread::sleep(BATCH_TIME);
        flushed
    }
}

pub(super) struct JsonLines {
    pub(super) service: &'static str,
    pub(super) lines: NonBlocking,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::of(event, Line::default());
        fields.add("level", event.metadata().level().as_str());
        fields.add("service", self.service);
        fields.add("logged_at", rfc3339_micros(OffsetDateTime::now_utc()));
        fields.add_context(event);
        // Never fails: a line that does not fit into the buffer is dropped.
        let _ = self.lines.clone().write_all(&fields.encoder.finish());
    }
}

/// A JSON object under construction.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

impl Encoder for Line {
    fn add(&mut self, name: &'static str, value: impl Serialize) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        // Cannot fail: it writes to memory, and every value has a JSON form.
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut self.0, &value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    struct Lines(Sender<Vec<u8>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut fields = Fields::of(event, Line::default());
            fields.add("count", 7);
            fields.add("other", 8);
            let _ = self.0.send(fields.encoder.finish());
        }
    }

    #[test]
    fn the_first_value_of_a_field_stays_and_is_escaped() -> serde_json::Result<()> {
        let (sender, lines) = channel();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Lines(sender)), || {
            tracing::info!(event = "a \"quoted\"\nname", count = 1);
            tracing::info!("a text");
        });
        let expected = [
            json!({"event": "a \"quoted\"\nname", "count": 1, "other": 8}),
            json!({"event": "information", "text": "a text", "count": 7, "other": 8}),
        ];
        let lines: Vec<Vec<u8>> = lines.try_iter().collect();
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(serde_json::from_slice::<serde_json::Value>(line)?, expected);
        }
        Ok(())
    }
}
