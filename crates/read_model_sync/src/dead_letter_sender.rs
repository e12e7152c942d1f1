//! Sends dead letters to their queue.
//!
//! A task of its own publishes them, and the projection never waits for it. When the broker does not take a letter, its delivery is held: it
//! stays unacknowledged, its body is dropped, and after a pause it is requeued and comes again. So held deliveries take no memory here,
//! survive this process, and none waits so long that RabbitMQ ends its channel (30 minutes).

mod held_deliveries;
mod publisher;

use std::time::{Duration, Instant};

use common::broker::{Connector, Outgoing};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::METRICS;
use crate::recent_letters::RecentLetters;
use held_deliveries::HeldDeliveries;

/// For the bodies of all letters in flight. A single letter may be larger.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Refused letters are logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The delivery that a letter in flight replaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    /// Delivery tags are unique within one consumer only.
    consumer: u64,
    tag: u64,
    /// Length of the body.
    bytes: usize,
}

/// Whether the broker took a letter, or why it did not.
pub(crate) type SendResult = (Ticket, Result<(), String>);

/// The dead letters of a projector: those in flight, and the deliveries of those that the broker did not take. `tag` is that of a delivery.
#[derive(Debug)]
pub(crate) struct DeadLetterSender {
    to_publisher: UnboundedSender<(Ticket, Outgoing)>,
    results: UnboundedReceiver<SendResult>,
    _publisher: AbortOnDropHandle<()>,
    consumer: u64,
    /// Letters of this consumer.
    in_flight: usize,
    /// Letters of all consumers.
    bytes_in_flight: usize,
    held: HeldDeliveries,
    logged_at: Option<Instant>,
}

impl DeadLetterSender {
    /// Starts the task that publishes, and adds to `recent` what the broker has taken. It connects as `consumer` does, under another name.
    pub(crate) fn start(consumer: &Connector, recent: RecentLetters) -> Self {
        let (to_publisher, letters) = unbounded_channel();
        let (to_projector, results) = unbounded_channel();
        let connector = Connector {
            name: "read_model_sync dead letters",
            ..consumer.clone()
        };
        let publisher = tokio::spawn(publisher::run(connector, letters, to_projector, recent));
        Self {
            to_publisher,
            results,
            _publisher: AbortOnDropHandle::new(publisher),
            consumer: 0,
            in_flight: 0,
            bytes_in_flight: 0,
            held: HeldDeliveries::new(Instant::now()),
            logged_at: None,
        }
    }

    /// A new consumer begins. The broker delivers to it what the last one did not acknowledge.
    pub(crate) fn begin_consumer(&mut self) {
        self.consumer += 1;
        self.in_flight = 0;
        self.held.tags.clear();
        self.show_held();
    }

    /// Whether earlier deliveries are not acknowledged yet.
    pub(crate) fn any_unacknowledged(&self) -> bool {
        self.in_flight > 0 || !self.held.tags.is_empty()
    }

    pub(crate) fn any_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    pub(crate) fn held(&self) -> usize {
        self.held.tags.len()
    }

    /// The time until held deliveries are to be requeued; nothing if none is held.
    pub(crate) fn until_retry(&self) -> Option<Duration> {
        self.held.until_next(Instant::now())
    }

    /// Whether a letter with so many bytes may be sent now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes_in_flight == 0 || self.bytes_in_flight.saturating_add(bytes) <= MAX_BYTES
    }

    pub(crate) fn send(&mut self, tag: u64, message: Outgoing) {
        let ticket = Ticket {
            consumer: self.consumer,
            tag,
            bytes: message.body.len(),
        };
        self.in_flight += 1;
        self.bytes_in_flight += ticket.bytes;
        // Cannot fail: the task lives as long as this.
        let _ = self.to_publisher.send((ticket, message));
    }

    pub(crate) fn hold(&mut self, tag: u64, reason: &str) {
        METRICS.letters_refused.inc();
        self.held.add(tag, Instant::now());
        self.show_held();
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            let held = self.held.tags.len();
            tracing::error!(event = "dead_letter_refused", held, info = reason);
        }
    }

    pub(crate) async fn next_result(&mut self) -> Option<SendResult> {
        self.results.recv().await
    }

    pub(crate) fn try_next_result(&mut self) -> Option<SendResult> {
        self.results.try_recv().ok()
    }

    /// Records a result. Returns the tag of the delivery that is to be acknowledged now.
    pub(crate) fn record(&mut self, (ticket, published): SendResult) -> Option<u64> {
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(ticket.bytes);
        if published.is_ok() {
            METRICS.dead_lettered.inc();
            self.held.one_was_taken();
        }
        if ticket.consumer != self.consumer {
            return None;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match published {
            Ok(()) => Some(ticket.tag),
            Err(reason) => {
                self.hold(ticket.tag, &reason);
                None
            }
        }
    }

    /// Takes the tags of the deliveries that are to be requeued now.
    pub(crate) fn take_due(&mut self) -> Vec<u64> {
        let due = self.held.take_due(Instant::now());
        self.show_held();
        due
    }

    fn show_held(&self) {
        let held = i64::try_from(self.held.tags.len()).unwrap_or(i64::MAX);
        METRICS.letters_held.set(held);
    }
}
