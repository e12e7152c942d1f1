//! One connection through a proxy: two directions that obey what was set.

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

use super::Traffic;
use super::commit::{AnswerEnd, CommitFinder};

/// How much may be under way in one direction, as with TCP's window.
const UNDER_WAY: usize = 256 * 1024;
const PIECE: usize = 16 * 1024;
/// Bytes of a throttled direction go in pieces of this long.
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
        // Pieces go on as they came.
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

    /// Connects to the server, and passes bytes on until both directions have ended or one has failed, or the connection is silenced.
    pub(super) async fn serve(self, upstream: (String, u16)) {
        let Self {
            mut client,
            traffic,
            mut silenced,
        } = self;
        let mut server = None;
        let silent = tokio::select! {
            // As with traffic: nothing passes that should not any more.
            biased;
            silent = silenced.changed() => silent.is_ok(),
            () = pass_on(&mut client, &mut server, traffic, upstream) => false,
        };
        if silent {
            // It speaks no more, and is not counted again.
            drop(silenced);
            tokio::join!(swallow(Some(&mut client)), swallow(server.as_mut()));
        }
    }
}

async fn pass_on(
    client: &mut Side,
    server: &mut Option<Side>,
    mut traffic: watch::Receiver<Traffic>,
    (host, port): (String, u16),
) {
    // A server that cannot be reached does not see the client either.
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

/// Takes what a side sends until it ends, and tells nobody.
async fn swallow(side: Option<&mut Side>) {
    let Some(side) = side else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(1..) = side.stream.read(&mut piece).await {}
}

/// What is particular to one of the two directions.
trait Way {
    fn passes(traffic: &Traffic) -> bool;
    /// Sees what has arrived from the source, and whether it may go on; an error resets the connection.
    fn arrived(&mut self, bytes: &[u8]) -> io::Result<bool>;
    /// Sees what has been handed to the destination.
    fn passed_on(&mut self, bytes: &[u8], traffic: &Traffic);
}

/// From the client to the server.
struct Forth<'a>(CommitFinder, &'a AtomicBool);

impl Way for Forth<'_> {
    fn passes(traffic: &Traffic) -> bool {
        traffic.reaches_server()
    }

    fn arrived(&mut self, _bytes: &[u8]) -> io::Result<bool> {
        Ok(true)
    }

    fn passed_on(&mut self, bytes: &[u8], traffic: &Traffic) {
        // Always followed: a connection may be old when its commits become interesting.
        if self.0.finds_commit(bytes) && *traffic == Traffic::SwallowCommitAnswer {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// From the server to the client.
struct Back<'a>(AnswerEnd, &'a AtomicBool);

impl Way for Back<'_> {
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

    fn passed_on(&mut self, _bytes: &[u8], _traffic: &Traffic) {}
}

struct Direction<'a> {
    source: ReadHalf<'a>,
    destination: WriteHalf<'a>,
    traffic: watch::Receiver<Traffic>,
    /// Pieces, and when they may go on.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    bytes_under_way: usize,
    /// When the source has ended: when its end may be passed on.
    end: Option<Instant>,
    throttled_until: Instant,
}

impl<'a> Direction<'a> {
    fn new(source: ReadHalf<'a>, destination: WriteHalf<'a>, traffic: watch::Receiver<Traffic>) -> Self {
        Self {
            source,
            destination,
            traffic,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            end: None,
            throttled_until: Instant::now(),
        }
    }

    async fn run<W: Way>(mut self, mut way: W) -> io::Result<()> {
        loop {
            let traffic = self.traffic.borrow_and_update().clone();
            let passes = W::passes(&traffic);
            let due = self.under_way.front().map(|(due, _)| *due);
            let next = due.map(|due| due.max(self.throttled_until)).or(self.end);
            let is_due = next.is_some_and(|next| next <= Instant::now());
            if passes && is_due && due.is_none() {
                return self.destination.shutdown().await;
            }
            let reads = passes && self.end.is_none() && self.bytes_under_way < UNDER_WAY;
            tokio::select! {
                // What was set comes first: nothing passes that should not any more.
                biased;
                changed = self.traffic.changed() => changed.map_err(io::Error::other)?,
                ready = self.destination.writable(), if passes && is_due => {
                    ready?;
                    self.pass_on(&mut way, &traffic)?;
                }
                ready = self.source.readable(), if reads => {
                    ready?;
                    self.take(&mut way, &traffic)?;
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if passes && next.is_some() && !is_due => {}
            }
        }
    }

    fn take<W: Way>(&mut self, way: &mut W, traffic: &Traffic) -> io::Result<()> {
        let delay = match traffic {
            Traffic::Latency(delay) => *delay,
            _ => Duration::ZERO,
        };
        let mut piece = vec![0; PIECE];
        let Some(read) = unless_it_would_block(self.source.try_read(&mut piece))? else {
            return Ok(());
        };
        piece.truncate(read);
        let goes_on = way.arrived(&piece)?;
        let due = Instant::now() + delay;
        if read == 0 {
            self.end = Some(due);
        } else if goes_on {
            self.bytes_under_way += read;
            self.under_way.push_back((due, piece));
        }
        Ok(())
    }

    fn pass_on<W: Way>(&mut self, way: &mut W, traffic: &Traffic) -> io::Result<()> {
        let Some((_, piece)) = self.under_way.front_mut() else {
            return Ok(());
        };
        let most = match traffic {
            Traffic::Throttle(per_second) => (per_second / THROTTLE_STEPS_PER_S).max(1) as usize,
            _ => piece.len(),
        };
        let most = most.min(piece.len());
        let Some(written) = unless_it_would_block(self.destination.try_write(&piece[..most]))? else {
            return Ok(());
        };
        way.passed_on(&piece[..written], traffic);
        piece.drain(..written);
        if piece.is_empty() {
            self.under_way.pop_front();
        }
        self.bytes_under_way -= written;
        self.throttled_until = Instant::now();
        if let Traffic::Throttle(per_second) = traffic {
            let taken_us = written as u64 * 1_000_000 / u64::from(*per_second).max(1);
            self.throttled_until += Duration::from_micros(taken_us);
        }
        Ok(())
    }
}

fn unless_it_would_block(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        outcome => outcome.map(Some),
    }
}
