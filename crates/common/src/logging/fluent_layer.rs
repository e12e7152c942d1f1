//! The outlet to Fluentd: a `tracing` layer over the forward client.

use std::fmt;
use std::time::SystemTime;

use fluent_logger::{Config, Record, Sender, Status, Value, Worker};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::context_fields::add_context;
use crate::endpoints::Logging;

pub(super) struct FluentLayer {
    service: &'static str,
    sender: Sender,
}

impl FluentLayer {
    pub(super) fn start(service: &'static str, host: &str, endpoint: &Logging) -> (Self, Worker) {
        let mut config = Config::new(host, endpoint.port);
        config.retry = endpoint.retry;
        let (host, port) = (host.to_owned(), endpoint.port);
        let (sender, worker) = fluent_logger::start(config, move |status| report(&status, &host, port));
        (Self { service, sender }, worker)
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

fn report(status: &Status, host: &str, port: u16) {
    match status {
        Status::Connected => tracing::info!(event = "connected_to_logging"),
        Status::ConnectFailed { error } => {
            tracing::warn!(event = "failed_to_connect_to_logging", host, port, info = %error);
        }
        Status::Dropped { events } => {
            tracing::warn!("{events} events were dropped because the log server was away or slow")
        }
    }
}

impl<S: Subscriber> Layer<S> for FluentLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        add_context(event, |name, value| {
            fields.record.insert(name.to_owned(), Value::Str(value));
        });
        event.record(&mut fields);
        let name = fields.event.unwrap_or_else(|| "information".to_owned());
        self.sender.send(
            format!("pydist.{}.{name}", self.service),
            SystemTime::now(),
            fields.record,
        );
    }
}

/// The fields of an event: its name apart, and its message under the name that `information` has for it.
#[derive(Default)]
struct Fields {
    event: Option<String>,
    record: Record,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" {
            "text"
        } else {
            field.name()
        };
        self.record.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Some(value.to_owned());
        } else {
            self.insert(field, Value::Str(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, Value::U64(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, Value::Bool(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, Value::Str(format!("{value:?}")));
    }
}
