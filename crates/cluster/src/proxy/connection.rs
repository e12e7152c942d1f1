//! One connection through a proxy.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::commit::{AnswerEnd, CommitFinder};
use super::traffic::Traffic;

/// Bytes in flight in one direction, like TCP's window.
const MAX_IN_FLIGHT: usize = 256 * 1024;
const PIECE: usize = 16 * 1024;
/// A throttled direction sends this many pieces per second.
const THROTTLE_STEPS_PER_S: u32 = 50;

/// Counts a connection as open until it is dropped.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A socket that is reset when dropped, unless both directions ended in order.
struct Side {
    stream: TcpStream,
    ended_in_order: bool,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        // Pieces are forwarded as they come.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            ended_in_order: false,
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.ended_in_order {
            let _ = self.stream.set_zero_linger();
        }
    }
}

pub(super) struct Connection {
    client: Side,
    traffic: watch::Receiver<Traffic>,
    silenced: watch::Receiver<()>,
}

impl Connection {
    pub(super) fn new(
        client: TcpStream,
        traffic: watch::Receiver<Traffic>,
        silenced: watch::Receiver<()>,
    ) -> Self {
        Self {
            client: Side::new(client),
            traffic,
            silenced,
        }
    }

    /// Connects to the server and forwards bytes until both directions have ended, one has failed, or the connection is silenced.
    pub(super) async fn serve(self, upstream: (String, u16)) {
        let Self {
            mut client,
            traffic,
            mut silenced,
        } = self;
        let mut server = None;
        let silent = tokio::select! {
            // First, so that nothing is forwarded after it was silenced.
            biased;
            silent = silenced.changed() => silent.is_ok(),
            () = forward(&mut client, &mut server, traffic, upstream) => false,
        };
        if silent {
            // No longer counted as a connection that can be silenced.
            drop(silenced);
            tokio::join!(discard(Some(&mut client)), discard(server.as_mut()));
        }
    }
}

async fn forward(
    client: &mut Side,
    server: &mut Option<Side>,
    mut traffic: watch::Receiver<Traffic>,
    (host, port): (String, u16),
) {
    // An unreachable server does not see the client either.
    if traffic.wait_for(Traffic::reaches_server).await.is_err() {
        return;
    }
    let Ok(stream) = TcpStream::connect((&*host, port)).await else {
        return;
    };
    let server = server.insert(Side::new(stream));
    let commit_is_out = AtomicBool::new(false);
    let ended = {
        let (from_client, to_client) = client.stream.split();
        let (from_server, to_server) = server.stream.split();
        let forth = Direction::new(from_client, to_server, traffic.clone());
        let back = Direction::new(from_server, to_client, traffic);
        tokio::try_join!(
            forth.run(Forth(CommitFinder::default(), &commit_is_out)),
            back.run(Back(AnswerEnd::default(), &commit_is_out))
        )
    };
    client.ended_in_order = ended.is_ok();
    server.ended_in_order = ended.is_ok();
}

/// Reads and drops what a side sends until it ends.
async fn discard(side: Option<&mut Side>) {
    let Some(side) = side else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(1..) = side.stream.read(&mut piece).await {}
}

/// The differences between the two directions.
trait Rules {
    fn passes(traffic: &Traffic) -> bool;
    /// Called with bytes from the source. Returns whether to forward them. An error resets the connection.
    fn arrived(&mut self, bytes: &[u8]) -> io::Result<bool>;
    /// Called with bytes that were sent to the destination.
    fn forwarded(&mut self, bytes: &[u8], traffic: &Traffic);
}

/// From the client to the server.
struct Forth<'a>(CommitFinder, &'a AtomicBool);

impl Rules for Forth<'_> {
    fn passes(traffic: &Traffic) -> bool {
        traffic.reaches_server()
    }

    fn arrived(&mut self, _bytes: &[u8]) -> io::Result<bool> {
        Ok(true)
    }

    fn forwarded(&mut self, bytes: &[u8], traffic: &Traffic) {
        // Always parsed, because a connection may be old when the traffic is set.
        if self.0.finds_commit(bytes) && *traffic == Traffic::SwallowCommitAnswer {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// From the server to the client.
struct Back<'a>(AnswerEnd, &'a AtomicBool);

impl Rules for Back<'_> {
    fn passes(traffic: &Traffic) -> bool {
        traffic.reaches_client()
    }

    fn arrived(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if !self.1.load(Ordering::Relaxed) {
            return Ok(true);
        }
        if self.0.is_reached(bytes) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(false)
    }

    fn forwarded(&mut self, _bytes: &[u8], _traffic: &Traffic) {}
}

struct Direction<'a> {
    source: ReadHalf<'a>,
    destination: WriteHalf<'a>,
    traffic: watch::Receiver<Traffic>,
    /// Pieces in flight, each with the time when it is due.
    in_flight: VecDeque<(Instant, Vec<u8>)>,
    bytes_in_flight: usize,
    /// If the source has ended: when its end is due at the destination.
    end: Option<Instant>,
    throttled_until: Instant,
}

impl<'a> Direction<'a> {
    fn new(source: ReadHalf<'a>, destination: WriteHalf<'a>, traffic: watch::Receiver<Traffic>) -> Self {
        Self {
            source,
            destination,
            traffic,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            end: None,
            throttled_until: Instant::now(),
        }
    }

    async fn run<R: Rules>(mut self, mut rules: R) -> io::Result<()> {
        loop {
            let traffic = self.traffic.borrow_and_update().clone();
            let passes = R::passes(&traffic);
            let due = self.in_flight.front().map(|(due, _)| *due);
            let next = due.map(|due| due.max(self.throttled_until)).or(self.end);
            let is_due = next.is_some_and(|next| next <= Instant::now());
            if passes && is_due && due.is_none() {
                return self.destination.shutdown().await;
            }
            let reads = passes && self.end.is_none() && self.bytes_in_flight < MAX_IN_FLIGHT;
            tokio::select! {
                // First, so that nothing is forwarded that should not be.
                biased;
                changed = self.traffic.changed() => changed.map_err(io::Error::other)?,
                ready = self.destination.writable(), if passes && is_due => {
                    ready?;
                    self.forward(&mut rules, &traffic)?;
                }
                ready = self.source.readable(), if reads => {
                    ready?;
                    self.take(&mut rules, &traffic)?;
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if passes && next.is_some() && !is_due => {}
            }
        }
    }

    fn take<R: Rules>(&mut self, rules: &mut R, traffic: &Traffic) -> io::Result<()> {
        let delay = match traffic {
            Traffic::Latency(delay) => *delay,
            _ => Duration::ZERO,
        };
        let mut piece = vec![0; PIECE];
        let Some(read) = none_if_blocked(self.source.try_read(&mut piece))? else {
            return Ok(());
        };
        piece.truncate(read);
        let goes_on = rules.arrived(&piece)?;
        let due = Instant::now() + delay;
        if read == 0 {
            self.end = Some(due);
        } else if goes_on {
            self.bytes_in_flight += read;
            self.in_flight.push_back((due, piece));
        }
        Ok(())
    }

    fn forward<R: Rules>(&mut self, rules: &mut R, traffic: &Traffic) -> io::Result<()> {
        let Some((_, piece)) = self.in_flight.front_mut() else {
            return Ok(());
        };
        let max = match traffic {
            Traffic::Throttle(per_second) => (per_second / THROTTLE_STEPS_PER_S).max(1) as usize,
            _ => piece.len(),
        };
        let max = max.min(piece.len());
        let Some(written) = none_if_blocked(self.destination.try_write(&piece[..max]))? else {
            return Ok(());
        };
        rules.forwarded(&piece[..written], traffic);
        piece.drain(..written);
        if piece.is_empty() {
            self.in_flight.pop_front();
        }
        self.bytes_in_flight -= written;
        self.throttled_until = Instant::now();
        if let Traffic::Throttle(per_second) = traffic {
            let taken_us = written as u64 * 1_000_000 / u64::from(*per_second).max(1);
            self.throttled_until += Duration::from_micros(taken_us);
        }
        Ok(())
    }
}

fn none_if_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        outcome => outcome.map(Some),
    }
}
