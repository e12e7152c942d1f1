//! What clients hold of the process: connections, and the bytes of requests that have not arrived in full and of answers that were not
//! taken in full. Both have a bound. Past it the connection goes that has waited longest for its client, so that the others are served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// As many connections may be open.
const MAX_CONNECTIONS: usize = 2_176;

/// What all connections may hold together. In memory it is about three times as much, because buffers are larger than what is in them;
/// with the connections themselves and the process it is less than the 64 MB that `create_buy_order/tests/api/unfinished.rs` holds it to.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// What an unfinished request takes besides what has come of it: hyper's first buffer, and its own state.
const UNFINISHED_BYTES: usize = 8 * 1024;

/// What a client may have sent behind a complete request and still count as idle.
const REMAINDER: usize = 512;

/// All seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    places: Arc<Semaphore>,
    table: Mutex<Table>,
}

/// Which connections wait for their clients: by a number that grows, so that the first has waited longest.
#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: usize,
    idle: BTreeMap<u64, CancellationToken>,
    unfinished: BTreeMap<u64, CancellationToken>,
}

impl Table {
    fn waiting(&mut self, whom: Waiting) -> Option<&mut BTreeMap<u64, CancellationToken>> {
        match whom {
            Waiting::ForUs => None,
            Waiting::Idle => Some(&mut self.idle),
            Waiting::Unfinished => Some(&mut self.unfinished),
        }
    }

    /// Sheds the one that has waited longest.
    fn shed_oldest(&mut self) {
        let since = |waiting: &BTreeMap<u64, _>| waiting.keys().next().copied().unwrap_or(u64::MAX);
        if since(&self.idle) < since(&self.unfinished) {
            shed_first(&mut self.idle);
        } else {
            shed_first(&mut self.unfinished);
        }
    }
}

fn shed_first(waiting: &mut BTreeMap<u64, CancellationToken>) {
    if let Some((_, shed)) = waiting.pop_first() {
        shed.cancel();
    }
}

/// The seat of one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    _place: OwnedSemaphorePermit,
    shed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The connection's number in the table.
    number: u64,
    /// Bytes that were read and may still be in a buffer.
    read: usize,
    /// How many of them the last read brought: behind a complete request there are at most so many in the buffer.
    last_read: usize,
    /// Bytes of the answer that the system has not taken.
    unsent: usize,
    /// Something of a next request is there.
    has_begun: bool,
    /// The last request is there in full.
    has_arrived: bool,
    /// The last request has its answer.
    has_answer: bool,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// We have a request in hand.
    ForUs,
    /// The client has to begin a request.
    Idle,
    /// The client has to send the rest, or to take the answer.
    Unfinished,
}

impl State {
    const fn waiting(&self) -> Waiting {
        if self.has_arrived && !self.has_answer {
            Waiting::ForUs
        } else if self.has_arrived && !self.has_begun && self.unsent == 0 && self.read <= REMAINDER {
            Waiting::Idle
        } else {
            Waiting::Unfinished
        }
    }

    const fn held(&self) -> usize {
        let begun = match self.waiting() {
            Waiting::Unfinished => UNFINISHED_BYTES,
            Waiting::Idle | Waiting::ForUs => 0,
        };
        self.read.saturating_add(self.unsent).saturating_add(begun)
    }
}

impl Seats {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            table: Mutex::default(),
        })
    }

    /// A seat for a connection. Where none is free, the one that has waited longest for its client is shed; where all have a request in
    /// hand, this waits.
    pub(super) async fn take(self: Arc<Self>) -> Option<Seat> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                locked(&self.table).shed_oldest();
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        Some(self.seat(place))
    }

    /// A seat, where one is free.
    pub(super) fn try_take(self: Arc<Self>) -> Option<Seat> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(self.seat(place))
    }

    fn seat(self: Arc<Self>, place: OwnedSemaphorePermit) -> Seat {
        let shed = CancellationToken::new();
        let mut table = locked(&self.table);
        let number = table.next;
        table.next += 1;
        table.idle.insert(number, shed.clone());
        drop(table);
        Seat {
            seats: self,
            _place: place,
            shed,
            state: Mutex::new(State {
                number,
                read: 0,
                last_read: 0,
                unsent: 0,
                has_begun: false,
                has_arrived: true,
                has_answer: true,
            }),
        }
    }
}

impl Seat {
    /// Cancelled when the connection has to make room.
    pub(super) const fn shed(&self) -> &CancellationToken {
        &self.shed
    }

    /// So many bytes were read.
    pub(super) fn read(&self, bytes: usize) {
        self.update(|state| {
            state.read = state.read.saturating_add(bytes);
            state.last_read = bytes;
            state.has_begun = state.has_begun || state.has_answer;
        });
    }

    /// The headers of a request are there.
    pub(super) fn headers_arrived(&self) {
        self.update(|state| {
            state.has_begun = false;
            state.has_arrived = false;
            state.has_answer = false;
        });
    }

    /// The request is there in full.
    pub(super) fn arrived(&self) {
        self.update(|state| {
            state.has_arrived = true;
            state.read = state.last_read;
        });
    }

    /// So many bytes of the body were thrown away.
    pub(super) fn threw_away(&self, bytes: usize) {
        self.update(|state| state.read = state.read.saturating_sub(bytes));
    }

    /// Whether something of a request is there that has no answer.
    pub(super) fn owes_an_answer(&self) -> bool {
        let state = locked(&self.state);
        state.has_begun || !state.has_answer
    }

    /// Whether the last request is there in full.
    pub(super) fn has_arrived(&self) -> bool {
        locked(&self.state).has_arrived
    }

    /// The request has an answer of so many bytes.
    pub(super) fn answered(&self, bytes: usize) {
        self.update(|state| {
            state.has_answer = true;
            state.unsent = bytes;
        });
    }

    /// The system took so many bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.update(|state| state.unsent = state.unsent.saturating_sub(bytes));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = locked(&self.state);
        let (waiting, held) = (state.waiting(), state.held());
        change(&mut state);
        if (state.waiting(), state.held()) == (waiting, held) {
            return;
        }
        let mut table = locked(&self.seats.table);
        if state.waiting() != waiting {
            if let Some(left) = table.waiting(waiting) {
                left.remove(&state.number);
            }
            state.number = table.next;
            table.next += 1;
            if let Some(joined) = table.waiting(state.waiting()) {
                joined.insert(state.number, self.shed.clone());
            }
        }
        table.held = table.held.saturating_sub(held).saturating_add(state.held());
        if table.held > MAX_HELD_BYTES && state.held() > held {
            shed_first(&mut table.unfinished);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let state = locked(&self.state);
        let mut table = locked(&self.seats.table);
        if let Some(left) = table.waiting(state.waiting()) {
            left.remove(&state.number);
        }
        table.held = table.held.saturating_sub(state.held());
    }
}

/// Nothing that runs under a lock can panic half way, so a poisoned lock holds a sound state.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
