//! Dead letters on their way to their queue.
//!
//! They are published beside the projection, which never waits for them. A letter that the broker does not take is held: its delivery stays
//! unacknowledged, its body is forgotten, and after a pause the delivery is given back to its queue, to come round again. So what is held
//! takes no memory here, survives this process, and no delivery waits long enough for RabbitMQ to end its channel (after 30 minutes).

mod publisher;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::broker::Outgoing;
use common::endpoints;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::METRICS;

/// Letters on their way may hold so much together, or be one.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The pauses between two tries: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So many are tried after a pause.
const TRIED: usize = 100;

/// So many are tried at once when one was taken.
const TRIED_IN_HOPE: usize = 1000;

/// Letters that are refused are told of once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A delivery of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticket {
    /// Delivery tags begin anew with each.
    consumer: u64,
    tag: u64,
}

/// A letter, with the delivery that it takes the place of.
#[derive(Debug)]
struct Letter {
    ticket: Ticket,
    message: Outgoing,
}

/// What became of a letter.
#[derive(Debug)]
pub(crate) struct Fate {
    ticket: Ticket,
    bytes: usize,
    /// Why it is not among the dead letters.
    published: Result<(), String>,
}

/// The letters of a projector: those that are published now, and those that are held.
#[derive(Debug)]
pub(crate) struct Letters {
    to_publisher: UnboundedSender<Letter>,
    fates: UnboundedReceiver<Fate>,
    _publisher: AbortOnDropHandle<()>,
    consumer: u64,
    /// Of this consumer.
    in_flight: usize,
    /// Of all consumers.
    bytes_in_flight: usize,
    held: Held,
    told_at: Option<Instant>,
}

impl Letters {
    /// Starts the task that publishes.
    pub(crate) fn start(queue: endpoints::Queue) -> Self {
        let (to_publisher, letters) = unbounded_channel();
        let (to_projector, fates) = unbounded_channel();
        let publisher = tokio::spawn(publisher::run(queue, letters, to_projector));
        Self {
            to_publisher,
            fates,
            _publisher: AbortOnDropHandle::new(publisher),
            consumer: 0,
            in_flight: 0,
            bytes_in_flight: 0,
            held: Held::new(Instant::now()),
            told_at: None,
        }
    }

    /// There is a new consumer, to which the broker gives what was not acknowledged by the last one.
    pub(crate) fn begin(&mut self) {
        self.consumer += 1;
        self.in_flight = 0;
        self.held.tags.clear();
        self.show_held();
    }

    /// Whether deliveries before the next ones are not acknowledged.
    pub(crate) fn any_open(&self) -> bool {
        self.in_flight > 0 || !self.held.tags.is_empty()
    }

    /// Whether letters are on their way.
    pub(crate) fn any_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.held.tags.len()
    }

    /// How long from now until letters are to be given back.
    pub(crate) fn until_next_try(&self) -> Option<Duration> {
        self.held.until_next_try(Instant::now())
    }

    /// Whether a letter of so many bytes may be published now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes_in_flight == 0 || self.bytes_in_flight.saturating_add(bytes) <= MOST_BYTES
    }

    /// Publishes a letter in the place of the delivery with this tag.
    pub(crate) fn publish(&mut self, tag: u64, message: Outgoing) {
        let ticket = Ticket {
            consumer: self.consumer,
            tag,
        };
        self.in_flight += 1;
        self.bytes_in_flight += message.body.len();
        // The task lives as long as this.
        let _ = self.to_publisher.send(Letter { ticket, message });
    }

    /// Holds the delivery with this tag.
    pub(crate) fn hold(&mut self, tag: u64, why: &str) {
        METRICS.letters_refused.inc();
        self.held.add(tag, Instant::now());
        self.show_held();
        if self.told_at.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told_at = Some(Instant::now());
            let held = self.held.tags.len();
            tracing::error!(event = "dead_letter_refused", held, info = why);
        }
    }

    /// What became of a letter; waits for it.
    pub(crate) async fn next_fate(&mut self) -> Option<Fate> {
        self.fates.recv().await
    }

    /// The same, without waiting.
    pub(crate) fn known_fate(&mut self) -> Option<Fate> {
        self.fates.try_recv().ok()
    }

    /// Takes note of it; the tag of the delivery that can be acknowledged now.
    pub(crate) fn note(&mut self, fate: Fate) -> Option<u64> {
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(fate.bytes);
        if fate.published.is_ok() {
            METRICS.dead_lettered.inc();
            self.held.one_was_taken();
        }
        if fate.ticket.consumer != self.consumer {
            return None;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match fate.published {
            Ok(()) => Some(fate.ticket.tag),
            Err(why) => {
                self.hold(fate.ticket.tag, &why);
                None
            }
        }
    }

    /// The tags of the deliveries that are to be given back now.
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

/// Deliveries that are held, oldest first, and when they are tried again.
#[derive(Debug)]
struct Held {
    tags: VecDeque<u64>,
    pause: Duration,
    next_try: Instant,
    /// One was taken since the last try, so that others may be.
    hope: bool,
}

impl Held {
    fn new(now: Instant) -> Self {
        Self {
            tags: VecDeque::new(),
            pause: FIRST_PAUSE,
            next_try: now,
            hope: false,
        }
    }

    fn add(&mut self, tag: u64, now: Instant) {
        self.next_try = self.next_try.max(now + FIRST_PAUSE);
        self.tags.push_back(tag);
    }

    fn one_was_taken(&mut self) {
        self.pause = FIRST_PAUSE;
        self.hope = true;
    }

    fn until_next_try(&self, now: Instant) -> Option<Duration> {
        let pause = match self.hope {
            true => Duration::ZERO,
            false => self.next_try.saturating_duration_since(now),
        };
        (!self.tags.is_empty()).then_some(pause)
    }

    fn take_due(&mut self, now: Instant) -> Vec<u64> {
        if self.until_next_try(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        let most = if self.hope { TRIED_IN_HOPE } else { TRIED };
        self.hope = false;
        self.next_try = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.tags.drain(..most.min(self.tags.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between the tries of letters that are never taken.
    fn pauses(held: &mut Held, mut now: Instant, tries: usize) -> Vec<u64> {
        let mut pauses = Vec::new();
        for _ in 0..tries {
            let pause = held.until_next_try(now).unwrap_or_default();
            pauses.push(pause.as_secs());
            now += pause;
            for tag in held.take_due(now) {
                held.add(tag, now);
            }
        }
        pauses
    }

    #[test]
    fn what_is_refused_again_and_again_is_tried_after_growing_pauses() {
        let now = Instant::now();
        let mut held = Held::new(now);
        held.add(1, now);
        assert_eq!(pauses(&mut held, now, 9), [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        held.one_was_taken();
        assert_eq!(pauses(&mut held, now, 3), [0, 1, 2], "from the beginning");
    }

    #[test]
    fn a_few_are_tried_first_and_more_once_one_was_taken_and_each_has_its_turn() {
        let now = Instant::now();
        let mut held = Held::new(now);
        for tag in 0..5000 {
            held.add(tag, now);
        }
        assert!(held.take_due(now).is_empty(), "not before its time");
        let later = now + FIRST_PAUSE;
        let first = held.take_due(later);
        assert_eq!(first, (0..100).collect::<Vec<u64>>());
        for tag in first {
            held.add(tag, later);
        }
        held.one_was_taken();
        assert_eq!(held.take_due(later), (100..1100).collect::<Vec<u64>>());
        assert!(held.take_due(later).is_empty(), "until another one is taken");
        assert_eq!(held.tags.len(), 4000);
    }
}
