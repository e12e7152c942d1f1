//! The fields of an event, and those that its context adds, in the encoding of an outlet.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use serde::Serialize;
use tracing::Event;
use tracing::field::{Field, Visit};

use crate::client_address::ClientAddress;
use crate::request_id::RequestId;

/// What an outlet writes fields into.
pub(super) trait Encoder {
    /// Writes a field.
    fn add(&mut self, name: &'static str, value: impl Serialize);

    /// Writes the name of the event, the value of the field `event`.
    fn add_event_name(&mut self, name: &str) {
        self.add("event", name);
    }
}

/// Encodes the fields of an event.
pub(super) struct Fields<E> {
    pub(super) encoder: E,
    /// The names of the fields so far.
    names: Vec<&'static str>,
}

impl<E: Encoder> Fields<E> {
    /// All fields of an event. An event without a name is `information`.
    pub(super) fn of(event: &Event<'_>, encoder: E) -> Self {
        let mut fields = Self {
            encoder,
            names: Vec::new(),
        };
        event.record(&mut fields);
        if !fields.names.contains(&"event") {
            fields.add_event_name("information");
        }
        fields
    }

    /// Adds a field, unless there is one of this name.
    pub(super) fn add(&mut self, name: &'static str, value: impl Serialize) {
        if !self.names.contains(&name) {
            self.names.push(name);
            self.encoder.add(name, value);
        }
    }

    /// Adds the ids of the request and of the trace that the event belongs to, and the address of the client.
    pub(super) fn add_context(&mut self, event: &Event<'_>) {
        // OpenTelemetry logs faults of a context while that context is borrowed: to read it here would panic.
        if event.metadata().target().starts_with("opentelemetry") {
            return;
        }
        Context::map_current(|context| {
            if let Some(id) = context.get::<RequestId>() {
                self.add("request_id", id.as_str());
            }
            if let Some(ClientAddress(address)) = context.get() {
                self.add("client_address", address);
            }
            let span = context.span();
            let span = span.span_context();
            if span.is_valid() {
                self.add("trace_id", format_args!("{}", span.trace_id()));
            }
        });
    }

    fn add_event_name(&mut self, name: &str) {
        self.names.push("event");
        self.encoder.add_event_name(name);
    }

    fn record(&mut self, field: &Field, value: impl Serialize) {
        let name = match field.name() {
            "message" => "text",
            name => name,
        };
        self.add(name, value);
    }
}

impl<E: Encoder> Visit for Fields<E> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.add_event_name(value),
            _ => self.record(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "event" => self.add_event_name(&format!("{value:?}")),
            _ => self.record(field, format_args!("{value:?}")),
        }
    }
}
