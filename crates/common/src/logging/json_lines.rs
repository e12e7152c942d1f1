//! The outlet to standard output: one JSON object a line.
//!
//! Not `tracing_subscriber::fmt`: beside its flattened fields it writes a `timestamp` and a `target` of its own, and events have fields of these names.

use std::fmt;
use std::io::Write as _;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::context_fields::add_context;
use crate::timestamp::rfc3339_micros;

pub(super) struct JsonLines {
    pub(super) service: &'static str,
    pub(super) lines: NonBlocking,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line(Map::new());
        line.0.insert(
            "logged_at".to_owned(),
            rfc3339_micros(OffsetDateTime::now_utc()).into(),
        );
        line.0
            .insert("level".to_owned(), event.metadata().level().as_str().into());
        line.0.insert("service".to_owned(), self.service.into());
        line.0.insert("event".to_owned(), "information".into());
        add_context(event, |name, value| {
            line.0.insert(name.to_owned(), value.into());
        });
        event.record(&mut line);
        let mut text = Value::Object(line.0).to_string();
        text.push('\n');
        // It takes or drops the line, and never fails.
        let _ = self.lines.clone().write_all(text.as_bytes());
    }
}

struct Line(Map<String, Value>);

impl Line {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" {
            "text"
        } else {
            field.name()
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }
}
