//! A bounded queue of encoded events between senders and the worker.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::encode::packed_forward;

/// Limits of memory, whatever the events are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of events, waiting and unacknowledged ones together.
    pub(crate) events: usize,
    /// Maximum size of all waiting events, encoded, in bytes.
    pub(crate) bytes: usize,
    /// Maximum size of one encoded event, in bytes.
    pub(crate) event_bytes: usize,
    /// Maximum number of events of one batch.
    pub(crate) batch_events: usize,
    /// A batch that has reached this size, in bytes, gets no more events.
    pub(crate) batch_bytes: usize,
}

/// Shared by the senders and the worker.
#[derive(Debug)]
pub(crate) struct Buffer {
    limits: Limits,
    state: Mutex<State>,
    arrived: Notify,
    stop_asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    in_flight: usize,
    sent: u64,
    dropped: u64,
    unreported: u64,
    stopping: bool,
    closed: bool,
}

#[derive(Debug)]
struct Event {
    tag: String,
    bytes: Vec<u8>,
}

/// The events of one tag in one message. It is encoded once, so that a repetition has the same id and the same bytes.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) id: String,
    pub(crate) message: Vec<u8>,
    pub(crate) events: usize,
}

/// Numbers of events at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) pending: usize,
}

impl Buffer {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = Mutex::default();
        Self {
            limits,
            state,
            arrived: Notify::new(),
            stop_asked: Notify::new(),
        }
    }

    /// Adds an event. If there is no room, drops the oldest waiting events, or the new one if none waits.
    pub(crate) fn push(&self, tag: String, bytes: Vec<u8>) {
        let mut state = self.state();
        if state.closed || bytes.len() > self.limits.event_bytes {
            return state.count_dropped(1);
        }
        while state.pending() >= self.limits.events || state.waiting_bytes + bytes.len() > self.limits.bytes {
            let Some(oldest) = state.waiting.pop_front() else {
                return state.count_dropped(1);
            };
            state.waiting_bytes -= oldest.bytes.len();
            state.count_dropped(1);
        }
        state.waiting_bytes += bytes.len();
        state.waiting.push_back(Event { tag, bytes });
        // The worker acts at these two lengths only. Waking it for each event would cost more than the events.
        let wake = state.waiting.len() == 1 || state.waiting.len() == self.limits.batch_events;
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Waits until a batch is full, or `batch_wait` has passed since its first event, or the buffer is stopping.
    pub(crate) async fn batch_ready(&self, batch_wait: Duration) {
        if !self.reached(1).await {
            return;
        }
        tokio::select! {
            _ = self.reached(self.limits.batch_events) => {}
            () = sleep_until(Instant::now() + batch_wait) => {}
        }
    }

    /// Waits until this many events wait. Returns `false` if the buffer is stopping.
    async fn reached(&self, events: usize) -> bool {
        loop {
            let stop_asked = self.stop_asked.notified();
            {
                let state = self.state();
                if state.waiting.len() >= events || state.stopping {
                    return !state.stopping;
                }
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = stop_asked => {}
            }
        }
    }

    /// Takes the oldest waiting events, as one chunk per tag. They count as in flight until they are acknowledged or given up.
    pub(crate) fn take_batch(&self) -> Vec<Chunk> {
        let mut taken = Vec::new();
        {
            let mut state = self.state();
            let mut bytes = 0;
            while taken.len() < self.limits.batch_events && bytes < self.limits.batch_bytes {
                let Some(event) = state.waiting.pop_front() else {
                    break;
                };
                state.waiting_bytes -= event.bytes.len();
                bytes += event.bytes.len();
                taken.push(event);
            }
            state.in_flight += taken.len();
        }
        chunks(&taken)
    }

    pub(crate) fn acknowledged(&self, events: usize) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(events);
        state.sent += events as u64;
    }

    /// Drops events in flight if the buffer is full. Returns whether it was.
    pub(crate) fn give_up_if_full(&self, events: usize) -> bool {
        let mut state = self.state();
        let full = state.pending() >= self.limits.events;
        if full {
            state.in_flight = state.in_flight.saturating_sub(events);
            state.count_dropped(events as u64);
        }
        full
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            sent: state.sent,
            dropped: state.dropped,
            pending: state.pending(),
        }
    }

    /// The number of events dropped since the last call.
    pub(crate) fn take_unreported_drops(&self) -> u64 {
        std::mem::take(&mut self.state().unreported)
    }

    pub(crate) fn stop(&self) {
        self.state().stopping = true;
        self.stop_asked.notify_waiters();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Completes when [`stop`](Self::stop) has been called.
    pub(crate) async fn stopping(&self) {
        let stop_asked = self.stop_asked.notified();
        if !self.is_stopping() {
            stop_asked.await;
        }
    }

    /// Closes the buffer: later events are dropped and counted.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// No code panics half-way through a change under this lock, so a poisoned lock holds a sound state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pending(&self) -> usize {
        self.waiting.len() + self.in_flight
    }

    fn count_dropped(&mut self, events: u64) {
        self.dropped += events;
        self.unreported += events;
    }
}

/// One chunk per tag. Tags are in the order of their first events, and events keep their order.
fn chunks(events: &[Event]) -> Vec<Chunk> {
    let mut by_tag: Vec<(&str, Vec<&[u8]>)> = Vec::new();
    for event in events {
        match by_tag.iter_mut().find(|(tag, _)| *tag == event.tag) {
            Some((_, entries)) => entries.push(&event.bytes),
            None => by_tag.push((&event.tag, vec![&event.bytes])),
        }
    }
    by_tag
        .into_iter()
        .map(|(tag, entries)| {
            let id = STANDARD.encode(Uuid::new_v4().as_bytes());
            Chunk {
                message: packed_forward(tag, &entries, &id),
                events: entries.len(),
                id,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        events: 4,
        bytes: 1000,
        event_bytes: 100,
        batch_events: 2,
        batch_bytes: 1000,
    };

    fn push(buffer: &Buffer, tags: &[&str]) {
        tags.iter()
            .for_each(|tag| buffer.push((*tag).to_owned(), tag.as_bytes().to_vec()));
    }

    fn counts(buffer: &Buffer) -> (u64, u64, usize) {
        let Counts {
            sent,
            dropped,
            pending,
        } = buffer.counts();
        (sent, dropped, pending)
    }

    #[test]
    fn the_oldest_waiting_event_makes_room_and_events_in_flight_do_not() {
        let buffer = Buffer::new(LIMITS);
        push(&buffer, &["a", "b", "c", "d"]);
        let batch = buffer.take_batch();
        assert_eq!(batch.len(), 2);
        push(&buffer, &["e", "f"]);
        assert_eq!(counts(&buffer), (0, 2, 4));
        buffer.acknowledged(2);
        assert_eq!(counts(&buffer), (2, 2, 2));
        let tags: Vec<_> = buffer
            .take_batch()
            .into_iter()
            .map(|chunk| chunk.message[2])
            .collect();
        assert_eq!(tags, b"ef");
    }

    #[test]
    fn with_everything_in_flight_the_new_event_is_dropped() {
        let buffer = Buffer::new(Limits {
            batch_events: 4,
            ..LIMITS
        });
        push(&buffer, &["a", "a", "b", "a"]);
        let batch = buffer.take_batch();
        assert_eq!(batch.iter().map(|chunk| chunk.events).collect::<Vec<_>>(), [3, 1]);
        assert_ne!(batch[0].id, batch[1].id);
        assert_eq!(batch[0].id.len(), 24);
        push(&buffer, &["e"]);
        assert_eq!(counts(&buffer), (0, 1, 4));
        assert!(buffer.give_up_if_full(3));
        assert!(!buffer.give_up_if_full(1));
        assert_eq!(counts(&buffer), (0, 4, 1));
        assert_eq!(
            (buffer.take_unreported_drops(), buffer.take_unreported_drops()),
            (4, 0)
        );
    }

    #[test]
    fn bytes_are_bounded_too() {
        let buffer = Buffer::new(Limits {
            bytes: 150,
            batch_bytes: 60,
            ..LIMITS
        });
        buffer.push("t".into(), vec![0; 101]);
        assert_eq!(counts(&buffer), (0, 1, 0));
        (0..3).for_each(|_| buffer.push("t".into(), vec![0; 60]));
        assert_eq!(counts(&buffer), (0, 2, 2));
        assert_eq!(buffer.take_batch()[0].events, 1);
    }

    #[test]
    fn after_the_end_events_are_counted_as_dropped() {
        let buffer = Buffer::new(LIMITS);
        buffer.close();
        push(&buffer, &["a"]);
        assert_eq!(counts(&buffer), (0, 1, 0));
    }
}
