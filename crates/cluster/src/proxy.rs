//! A TCP proxy between two parts of the cluster that fails as networks do.

mod commit;
mod connection;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc as orders, watch};
use tokio::task::JoinSet;

use crate::ports::Lease;
use connection::{Connection, Open};

/// How long the port may stay occupied when a proxy listens again.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// What happens to the bytes and connections of a [`TcpProxy`].
///
/// A direction that is dropped behaves as TCP does over a network that loses every packet, and that heals when another kind is set: the
/// sender's bytes fill the buffers on the way until it can write no more, and arrive after the healing, as if retransmitted. The end of a
/// connection is held back like its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    /// All goes through at once.
    Pass,
    /// Nothing listens: new connections are refused, open ones are reset.
    Refuse,
    /// New connections are accepted and reset at once, open ones are reset.
    Reset,
    /// Half-open: nothing of a client arrives. Connections stay open; new ones are accepted, and reach the server after the healing.
    DropToServer,
    /// Half-open: nothing of the server arrives.
    DropToClient,
    /// Nothing arrives on either side.
    DropBoth,
    /// Each direction is late by this much; the order is kept.
    Latency(Duration),
    /// Bytes per second, of each direction of each connection.
    Throttle(u32),
    /// PostgreSQL without TLS: a `COMMIT` (a simple query, as sqlx sends it) or a call of `accept_orders` (a prepared statement) reaches the
    /// server, which carries it out; its answer is swallowed and the connection reset, so that the client cannot know. What is under way when
    /// another kind of traffic is set fares so, too.
    SwallowCommitAnswer,
}

impl Traffic {
    fn listens(&self) -> bool {
        *self != Self::Refuse
    }

    fn resets(&self) -> bool {
        matches!(self, Self::Refuse | Self::Reset)
    }

    fn reaches_server(&self) -> bool {
        !matches!(self, Self::DropToServer | Self::DropBoth)
    }

    fn reaches_client(&self) -> bool {
        !matches!(self, Self::DropToClient | Self::DropBoth)
    }
}

/// An order to the proxy's thread, and where it says that it is in force.
enum Order {
    Traffic(Traffic, mpsc::Sender<anyhow::Result<()>>),
    /// The answer is the number of connections that fell silent.
    SilenceOpen(mpsc::Sender<usize>),
}

/// A proxy on a port of its own, with a thread of its own: a test that blocks does not stop it. Dropping it resets its connections.
#[derive(Debug)]
pub struct TcpProxy {
    lease: Lease,
    open: Arc<AtomicUsize>,
    orders: Option<orders::UnboundedSender<Order>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TcpProxy {
    /// Starts one in front of a server on a free port of 127.0.0.1. The server is asked for when a client connects: it may be away until
    /// then. A client of a server that refuses is reset, not refused.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(upstream_host: &str, upstream_port: u16) -> anyhow::Result<Self> {
        let lease = Lease::take()?;
        let listener = bind(lease.port())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let open = Arc::<AtomicUsize>::default();
        let proxy = Proxy {
            port: lease.port(),
            listener: None,
            upstream: (upstream_host.to_owned(), upstream_port),
            traffic: watch::Sender::new(Traffic::Pass),
            silenced: watch::Sender::new(()),
            connections: JoinSet::new(),
            open: Arc::clone(&open),
        };
        let (orders, inbox) = orders::unbounded_channel();
        let thread = std::thread::spawn(move || runtime.block_on(proxy.run(listener, inbox)));
        Ok(Self {
            lease,
            open,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.lease.port()
    }

    /// How many connections are open now, those included that wait for a server that cannot be reached.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// From now on traffic fares like this, that of open connections included.
    ///
    /// # Panics
    /// When it is to listen again and another program has taken its port.
    pub fn set(&self, traffic: Traffic) {
        let (in_force, answer) = mpsc::channel();
        let order = Order::Traffic(traffic.clone(), in_force);
        let sent = self
            .orders
            .as_ref()
            .is_some_and(|orders| orders.send(order).is_ok());
        let outcome = if sent {
            answer.recv().map_err(anyhow::Error::from).flatten()
        } else {
            Err(anyhow::anyhow!("its thread has ended"))
        };
        if let Err(error) = outcome {
            panic!("the proxy on port {} cannot {traffic:?}: {error:#}", self.port());
        }
    }

    /// Has every connection that is open now fall silent for ever, as behind a middlebox that has forgotten it and still acknowledges: what
    /// either side sends is taken and lost, and so is its end; nothing is ever sent to it again. New connections fare as was set. Answers how
    /// many fell silent.
    pub fn silence_open(&self) -> usize {
        let (in_force, answer) = mpsc::channel();
        let orders = self.orders.as_ref();
        let sent = orders.is_some_and(|orders| orders.send(Order::SilenceOpen(in_force)).is_ok());
        // A thread that has ended has no connections.
        if sent {
            answer.recv().unwrap_or_default()
        } else {
            0
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Proxy {
    port: u16,
    listener: Option<TcpListener>,
    upstream: (String, u16),
    traffic: watch::Sender<Traffic>,
    /// Followed by those connections that are not silent yet.
    silenced: watch::Sender<()>,
    connections: JoinSet<()>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    async fn run(mut self, listener: std::net::TcpListener, mut inbox: orders::UnboundedReceiver<Order>) {
        self.listener = TcpListener::from_std(listener).ok();
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Traffic(traffic, in_force)) => {
                        let _ = in_force.send(self.enforce(traffic).await);
                    }
                    Some(Order::SilenceOpen(in_force)) => {
                        let speaking = self.silenced.receiver_count();
                        // As with traffic: connections look at it before each byte.
                        self.silenced.send_replace(());
                        let _ = in_force.send(speaking);
                    }
                    None => return,
                },
                client = accept(self.listener.as_ref()) => self.welcome(client),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn enforce(&mut self, traffic: Traffic) -> anyhow::Result<()> {
        if !traffic.listens() {
            self.listener = None;
        } else if self.listener.is_none() {
            self.listener = Some(listen(self.port).await?);
        }
        let resets = traffic.resets();
        // Connections look at it before each byte that they pass on, and they share this thread: it is in force.
        self.traffic.send_replace(traffic);
        if resets {
            self.connections.shutdown().await;
        }
        Ok(())
    }

    fn welcome(&mut self, client: TcpStream) {
        if self.traffic.borrow().resets() {
            let _ = client.set_zero_linger();
            return;
        }
        let open = Open::count(&self.open);
        let connection = Connection::new(client, self.traffic.subscribe(), self.silenced.subscribe());
        let upstream = self.upstream.clone();
        self.connections.spawn(async move {
            let _open = open;
            connection.serve(upstream).await;
        });
    }
}

/// Out of file descriptors, for example: the client waits in the backlog until one is free.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Connections of before, which have not quite ended, do not hold the port; another program may.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let since = std::time::Instant::now();
    loop {
        match bind(port) {
            Err(_) if since.elapsed() < LISTENS_WITHIN => tokio::time::sleep(Duration::from_millis(10)).await,
            outcome => return Ok(TcpListener::from_std(outcome?)?),
        }
    }
}

fn bind(port: u16) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("could not listen on port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
