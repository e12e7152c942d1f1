//! The outlet to Fluentd: a `tracing` layer over the forward client.

use std::time::SystemTime;

use fluent_logger::{Config, Record, Sender, Status, Worker};
use serde::Serialize;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::fields::{Encoder, Fields};

pub(super) struct FluentLayer {
    service: &'static str,
    pub(super) sender: Sender,
}

impl FluentLayer {
    pub(super) fn start(service: &'static str, config: Config) -> (Self, Worker) {
        let (host, port) = (config.host.clone(), config.port);
        let (sender, worker) = fluent_logger::start(config, move |status| report(&status, &host, port));
        (Self { service, sender }, worker)
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
        let named = NamedRecord {
            tag: format!("pydist.{}.", self.service),
            record: Record::new(),
        };
        let mut fields = Fields::of(event, named);
        fields.add_context(event);
        let NamedRecord { tag, record } = fields.encoder;
        self.sender.send(tag, SystemTime::now(), &record);
    }
}

/// The name of an event goes into the tag, its other fields into the record.
struct NamedRecord {
    tag: String,
    record: Record,
}

impl Encoder for NamedRecord {
    fn add(&mut self, name: &'static str, value: impl Serialize) {
        self.record.insert(name, value);
    }

    fn add_event_name(&mut self, name: &str) {
        self.tag.push_str(name);
    }
}
