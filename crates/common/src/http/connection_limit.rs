//! Limits what clients can hold of this process: the number of connections, and the bytes of requests that are not complete and of answers
//! that are not sent. Above a limit the connection that has waited longest for its client is closed ("shed"), so that others are served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Of clients.
pub(super) const MAX_CONNECTIONS: usize = 2_176;

/// Of operators, on a port of their own.
pub(super) const MAX_CONNECTIONS_OF_OPERATORS: usize = 64;

/// Limit for all connections together. They take about three times as much memory, because buffers are larger than their content. With the
/// connections themselves and the process it is less than the 64 MB that `create_buy_order/tests/api/unfinished.rs` allows.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// What an unfinished request takes besides its bytes: the first buffer of hyper, and its own state.
const UNFINISHED_BYTES: usize = 8 * 1024;

/// A client may have sent this much after a complete request and still count as idle. Blanks in a request's headers count as sent after it.
const MAX_IDLE_BYTES: usize = 512;

/// The limits of one listener.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    permits: Arc<Semaphore>,
    waiting: Mutex<WaitingConnections>,
}

/// The connections that wait for their clients, by phase and a number that grows: the first one of a phase has waited longest.
#[derive(Debug, Default)]
struct WaitingConnections {
    next_number: u64,
    held_bytes: usize,
    connections: BTreeMap<(Phase, u64), CancellationToken>,
}

impl WaitingConnections {
    /// Adds a connection, unless it is in progress. Returns its number.
    fn add(&mut self, phase: Phase, shed: &CancellationToken) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if phase != Phase::InProgress {
            self.connections.insert((phase, number), shed.clone());
        }
        number
    }

    /// Sheds the connection that has waited longest in one of these phases.
    fn shed_oldest(&mut self, phases: &[Phase]) {
        let oldest_of = |phase: &Phase| {
            let mut waiting = self.connections.range((*phase, 0)..=(*phase, u64::MAX));
            waiting.next().map(|(key, _)| *key)
        };
        let oldest = phases
            .iter()
            .filter_map(oldest_of)
            .min_by_key(|(_, number)| *number);
        if let Some(shed) = oldest.and_then(|key| self.connections.remove(&key)) {
            shed.cancel();
        }
    }
}

/// The permit of one connection, which also tracks what the connection holds. Dropping it makes room for another connection.
#[derive(Debug)]
pub(super) struct Permit {
    limit: Arc<ConnectionLimit>,
    _permit: OwnedSemaphorePermit,
    /// Cancelled when the connection has to make room for others.
    pub(super) shed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the connection among those that wait.
    number: u64,
    /// Bytes that were read and may still be in a buffer.
    read: usize,
    /// Bytes of the last read. After a complete request, no more than these can still be in the buffer.
    last_read: usize,
    /// At least this many bytes the current request has, with those of its body that have not arrived.
    of_request: usize,
    /// Bytes of the answer that the kernel has not taken.
    unsent: usize,
    /// Some bytes of a next request have arrived.
    has_next: bool,
    /// The current request has arrived completely.
    is_received: bool,
    /// The current request has its answer.
    is_answered: bool,
}

/// Who has to act next on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The service: it handles a request.
    InProgress,
    /// The client may begin a request.
    Idle,
    /// The client has to send the rest of a request, or to take the answer.
    Unfinished,
}

impl State {
    const fn phase(&self) -> Phase {
        if self.is_received && !self.is_answered {
            Phase::InProgress
        } else if self.is_received && !self.has_next && self.unsent == 0 && self.read <= MAX_IDLE_BYTES {
            Phase::Idle
        } else {
            Phase::Unfinished
        }
    }

    const fn held_bytes(&self) -> usize {
        let overhead = match self.phase() {
            Phase::Unfinished => UNFINISHED_BYTES,
            Phase::Idle | Phase::InProgress => 0,
        };
        self.read.saturating_add(self.unsent).saturating_add(overhead)
    }
}

impl ConnectionLimit {
    pub(super) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(max_connections)),
            waiting: Mutex::default(),
        })
    }

    /// A permit for a connection. If none is free, the connection that has waited longest for its client is shed. If all connections have a
    /// request in progress, this waits.
    pub(super) async fn acquire(self: &Arc<Self>) -> Option<Permit> {
        if let Some(permit) = self.try_acquire() {
            return Some(permit);
        }
        locked(&self.waiting).shed_oldest(&[Phase::Idle, Phase::Unfinished]);
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(self.permit(permit))
    }

    /// A permit, if one is free.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.permit(permit))
    }

    fn permit(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Permit {
        let shed = CancellationToken::new();
        let number = locked(&self.waiting).add(Phase::Idle, &shed);
        Permit {
            limit: Arc::clone(self),
            _permit: permit,
            shed,
            state: Mutex::new(State {
                number,
                is_received: true,
                is_answered: true,
                ..State::default()
            }),
        }
    }
}

impl Permit {
    pub(super) fn bytes_read(&self, bytes: usize) {
        self.update(|state| {
            state.read = state.read.saturating_add(bytes);
            state.last_read = bytes;
            state.has_next = state.has_next || state.is_answered;
        });
    }

    /// The headers of a request have arrived, which has at least this many bytes with its body.
    pub(super) fn headers_received(&self, of_request: usize) {
        self.update(|state| {
            state.of_request = of_request;
            state.has_next = false;
            state.is_received = false;
            state.is_answered = false;
        });
    }

    /// The request has arrived completely.
    pub(super) fn request_received(&self) {
        self.update(|state| {
            state.is_received = true;
            let unread = state.read.saturating_sub(state.of_request);
            state.read = unread.min(state.last_read);
        });
    }

    /// Some bytes of the body were read and thrown away.
    pub(super) fn bytes_discarded(&self, bytes: usize) {
        self.update(|state| {
            state.read = state.read.saturating_sub(bytes);
            state.of_request = state.of_request.saturating_sub(bytes);
        });
    }

    /// The request has an answer of this size.
    pub(super) fn answered(&self, bytes: usize) {
        self.update(|state| {
            state.is_answered = true;
            state.unsent = bytes;
        });
    }

    /// The kernel took some bytes of the answer.
    pub(super) fn bytes_written(&self, bytes: usize) {
        self.update(|state| state.unsent = state.unsent.saturating_sub(bytes));
    }

    /// Whether there is a request, or a part of one, that has no answer.
    pub(super) fn owes_an_answer(&self) -> bool {
        let state = locked(&self.state);
        state.has_next || !state.is_answered
    }

    /// Whether the current request has arrived completely.
    pub(super) fn is_request_received(&self) -> bool {
        locked(&self.state).is_received
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = locked(&self.state);
        let (old_phase, old_bytes) = (state.phase(), state.held_bytes());
        change(&mut state);
        let (phase, bytes) = (state.phase(), state.held_bytes());
        if (phase, bytes) == (old_phase, old_bytes) {
            return;
        }
        let mut waiting = locked(&self.limit.waiting);
        if phase != old_phase {
            waiting.connections.remove(&(old_phase, state.number));
            state.number = waiting.add(phase, &self.shed);
        }
        waiting.held_bytes = waiting.held_bytes.saturating_sub(old_bytes).saturating_add(bytes);
        if waiting.held_bytes > MAX_HELD_BYTES && bytes > old_bytes {
            waiting.shed_oldest(&[Phase::Unfinished]);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let state = locked(&self.state);
        let mut waiting = locked(&self.limit.waiting);
        waiting.connections.remove(&(state.phase(), state.number));
        waiting.held_bytes = waiting.held_bytes.saturating_sub(state.held_bytes());
    }
}

/// No code panics half-way through a change under these locks, so a poisoned lock holds a sound state.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A connection that has sent `sent` bytes, of which the first `of_request` are a request, and has its answer.
    fn answered(limit: &Arc<ConnectionLimit>, sent: usize, of_request: usize) -> Permit {
        let permit = limit.try_acquire().unwrap();
        permit.bytes_read(sent);
        permit.headers_received(of_request);
        permit.request_received();
        permit.answered(0);
        permit
    }

    /// Connections that together hold more than the limit, each of them half a request.
    fn many_unfinished(limit: &Arc<ConnectionLimit>) -> Vec<Permit> {
        const SENT: usize = 16 * 1024;
        let unfinished = |_| {
            let permit = limit.try_acquire().unwrap();
            permit.bytes_read(SENT);
            permit
        };
        (0..=MAX_HELD_BYTES / SENT).map(unfinished).collect()
    }

    #[test]
    fn who_waits_after_a_large_request_is_not_shed_for_unfinished_ones() {
        let limit = ConnectionLimit::new(MAX_CONNECTIONS);
        let idle = answered(&limit, 8 * 1024, 8 * 1024);
        let unfinished = many_unfinished(&limit);
        assert!(unfinished[0].shed.is_cancelled());
        assert!(!idle.shed.is_cancelled());
    }

    #[test]
    fn what_is_sent_behind_a_request_counts_as_an_unfinished_one() {
        let limit = ConnectionLimit::new(MAX_CONNECTIONS);
        let pipelining = answered(&limit, 8 * 1024, 4 * 1024);
        let _unfinished = many_unfinished(&limit);
        assert!(pipelining.shed.is_cancelled());
    }

    #[test]
    fn a_body_that_was_discarded_is_not_taken_for_what_follows_it() {
        let limit = ConnectionLimit::new(MAX_CONNECTIONS);
        let permit = limit.try_acquire().unwrap();
        permit.bytes_read(8 * 1024);
        permit.headers_received(4 * 1024);
        permit.bytes_discarded(4 * 1024 - 100);
        permit.request_received();
        permit.answered(0);
        let _unfinished = many_unfinished(&limit);
        assert!(permit.shed.is_cancelled(), "4 KiB came after the request");
    }
}
