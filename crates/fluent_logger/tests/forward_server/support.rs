//! Waiting, recording of statuses, and servers whose every answer a test decides.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use fluent_logger::{Config, Record, Sender, Status, Worker, start};
use rmp::decode::{read_array_len, read_bin_len, read_int, read_map_len, read_str_len};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use crate::server::Server;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until the condition holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > end {
            bail!("waited in vain until {what}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A client that tries again quickly.
pub(crate) fn quick(port: u16) -> Config {
    Config {
        retry: Duration::from_millis(20),
        batch_wait: Duration::from_millis(10),
        ..Config::new("127.0.0.1", port)
    }
}

/// Everything a client told its user.
#[derive(Clone, Default)]
pub(crate) struct Statuses(Arc<Mutex<Vec<Status>>>);

impl Statuses {
    pub(crate) fn start(config: Config) -> (Self, Sender, Worker) {
        let statuses = Self::default();
        let told = statuses.clone();
        let (sender, worker) = start(config, move |status| told.0.lock().unwrap().push(status));
        (statuses, sender, worker)
    }

    pub(crate) fn connections(&self) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|status| **status == Status::Connected)
            .count()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        let failure = |status: &Status| match status {
            Status::ConnectFailed { error } => Some(error.clone()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(failure).collect()
    }

    pub(crate) fn failed_with(&self, words: &str) -> bool {
        self.failures().iter().any(|error| error.contains(words))
    }

    pub(crate) fn dropped(&self) -> u64 {
        let dropped = |status: &Status| match status {
            Status::Dropped { events } => Some(*events),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(dropped).sum()
    }
}

pub(crate) fn send_numbers(sender: &Sender, tag: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        sender.send(tag, SystemTime::now(), &Record::new().with("number", number));
    }
}

/// A port that refuses connections, and that nobody else gets, until a server that sets `SO_REUSEADDR` (as node
/// does) listens on it.
pub(crate) struct ReservedPort(TcpSocket);

impl ReservedPort {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind("127.0.0.1:0".parse()?)?;
        Ok(Self(socket))
    }

    pub(crate) fn number(&self) -> anyhow::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }
}

/// A PackedForward message as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: String,
    pub(crate) entries: Vec<u8>,
    pub(crate) chunk: String,
    pub(crate) size: u64,
}

impl Message {
    /// `None` while incomplete.
    fn take(received: &mut Vec<u8>) -> Option<Self> {
        let mut rest = received.as_slice();
        assert_eq!(read_array_len(&mut rest).ok()?, 3);
        let tag = text(&mut rest)?;
        let length = read_bin_len(&mut rest).ok()? as usize;
        let entries = bytes(&mut rest, length)?.to_vec();
        assert_eq!(read_map_len(&mut rest).ok()?, 2);
        assert_eq!(text(&mut rest)?, "chunk");
        let chunk = text(&mut rest)?;
        assert_eq!(text(&mut rest)?, "size");
        let size = read_int(&mut rest).ok()?;
        let used = received.len() - rest.len();
        received.drain(..used);
        Some(Self {
            tag,
            entries,
            chunk,
            size,
        })
    }

    pub(crate) fn ack(&self) -> Vec<u8> {
        let mut ack = b"\x81\xa3ack".to_vec();
        rmp::encode::write_str(&mut ack, &self.chunk).unwrap();
        ack
    }
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = read_str_len(rest).ok()? as usize;
    bytes(rest, length).map(|text| String::from_utf8(text.to_vec()).unwrap())
}

fn bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    pub(crate) async fn accept(listener: &TcpListener) -> anyhow::Result<Self> {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = accepted.context("nobody connected")??;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// The next message; `None` when the client closed the connection.
    pub(crate) async fn message(&mut self) -> anyhow::Result<Option<Message>> {
        self.slow_message(Duration::ZERO).await
    }

    /// The next message, read in pieces of 16 KiB with a pause after each.
    pub(crate) async fn slow_message(&mut self, pause: Duration) -> anyhow::Result<Option<Message>> {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            if let Some(message) = Message::take(&mut self.received) {
                return Ok(Some(message));
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await;
            match read.context("nothing was sent")?? {
                0 => return Ok(None),
                read => self.received.extend_from_slice(&bytes[..read]),
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, message: &Message) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&message.ack()).await?)
    }
}

pub(crate) async fn listen() -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

impl Server {
    pub(crate) fn count(&self) -> usize {
        self.events().len()
    }

    /// The field `number` of all events of a tag, in the order of arrival.
    pub(crate) fn numbers(&self, tag: &str) -> Vec<u64> {
        let of_tag = |event: &&Value| event["tag"] == tag;
        self.events()
            .iter()
            .filter(of_tag)
            .filter_map(|event| event["record"]["number"].as_u64())
            .collect()
    }
}
