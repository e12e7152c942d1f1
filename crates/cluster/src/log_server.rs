//! A fake Fluentd that can go away or fall silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use rmp::decode::{read_array_len, read_bin_len, read_int, read_map_len, read_str_len};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::proxy::{TcpProxy, Traffic};

/// A server of the part of Fluentd's forward protocol that `fluent_logger` uses: `PackedForward` with acknowledgements. It counts entries
/// and does not keep them.
#[derive(Debug)]
pub struct LogServer {
    // Makes the faults: the server itself always reads.
    proxy: TcpProxy,
    events: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl LogServer {
    /// Starts one on a free port of 127.0.0.1, with a thread of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no port for the log server")?;
        listener.set_nonblocking(true)?;
        let proxy = TcpProxy::start("127.0.0.1", listener.local_addr()?.port())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let events = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&events);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            proxy,
            events,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }

    /// Sets how traffic to and from it is treated from now on.
    ///
    /// # Panics
    /// As [`TcpProxy::set`].
    pub fn set(&self, traffic: Traffic) {
        self.proxy.set(traffic);
    }

    /// The proxy in front of it.
    #[must_use]
    pub fn proxy(&self) -> &TcpProxy {
        &self.proxy
    }

    /// The number of events that it has acknowledged.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.load(Ordering::SeqCst)
    }
}

impl Drop for LogServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, events: Arc<AtomicUsize>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    clients.spawn(acknowledge(client, Arc::clone(&events)));
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Acknowledges messages until the client disconnects.
async fn acknowledge(mut client: TcpStream, events: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut received = Vec::new();
    while client.read_buf(&mut received).await? > 0 {
        while let Some(message) = Message::first(&received) {
            received.drain(..message.bytes);
            events.fetch_add(message.events, Ordering::SeqCst);
            let mut ack = b"\x81\xa3ack".to_vec();
            rmp::encode::write_str(&mut ack, &message.chunk).map_err(std::io::Error::other)?;
            client.write_all(&ack).await?;
        }
    }
    Ok(())
}

/// `[tag, entries, {"chunk": id, "size": events}]`
struct Message {
    chunk: String,
    events: usize,
    bytes: usize,
}

impl Message {
    /// The first message in `received`, or `None` if it is incomplete.
    fn first(received: &[u8]) -> Option<Self> {
        let mut rest = received;
        let _fields = read_array_len(&mut rest).ok()?;
        text(&mut rest)?;
        let length = read_bin_len(&mut rest).ok()?;
        rest = rest.get(usize::try_from(length).ok()?..)?;
        let (mut chunk, mut events) = (String::new(), 0);
        for _ in 0..read_map_len(&mut rest).ok()? {
            match text(&mut rest)?.as_str() {
                "size" => events = read_int(&mut rest).ok()?,
                "chunk" => chunk = text(&mut rest)?,
                _ => return None,
            }
        }
        Some(Self {
            chunk,
            events,
            bytes: received.len() - rest.len(),
        })
    }
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(read_str_len(rest).ok()?).ok()?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).ok()
}
