//! A TCP proxy between two parts of the cluster that simulates network faults.

mod commit;
mod connection;
mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ports::Lease;
use connection::{Connection, Open};
pub use traffic::Traffic;

/// How long to wait for the port when the proxy listens again.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// A command to the proxy's thread, and the channel on which it reports that the command is in force.
enum Command {
    Traffic(Traffic, mpsc::Sender<anyhow::Result<()>>),
    /// The reply is the number of connections that were silenced.
    SilenceOpen(mpsc::Sender<usize>),
}

/// A proxy on its own port and thread, so that a test that blocks does not block it. Dropping it resets its connections.
#[derive(Debug)]
pub struct TcpProxy {
    lease: Lease,
    open: Arc<AtomicUsize>,
    commands: Option<UnboundedSender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TcpProxy {
    /// Starts a proxy for a server on a free port of 127.0.0.1. It connects to the server when a client connects; until then the server may be
    /// away. If the server refuses the connection, the client is reset.
    ///
    /// # Errors
    /// When no port is free.
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
        let (commands, inbox) = unbounded_channel();
        let thread = std::thread::spawn(move || runtime.block_on(proxy.run(listener, inbox)));
        Ok(Self {
            lease,
            open,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.lease.port()
    }

    /// The number of open connections, including those that wait for an unreachable server.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Sets how traffic is treated from now on, also on open connections.
    ///
    /// # Panics
    /// When it should listen again and another program has taken its port.
    pub fn set(&self, traffic: Traffic) {
        let (in_force, answer) = mpsc::channel();
        let command = Command::Traffic(traffic.clone(), in_force);
        let sent = self
            .commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok());
        let outcome = if sent {
            answer.recv().map_err(anyhow::Error::from).flatten()
        } else {
            Err(anyhow::anyhow!("its thread has ended"))
        };
        if let Err(error) = outcome {
            panic!("the proxy on port {} cannot {traffic:?}: {error:#}", self.port());
        }
    }

    /// Silences every open connection for ever, as a middlebox that has forgotten it and still acknowledges packets: what either side sends,
    /// including the end of the connection, is accepted and dropped, and nothing is sent to it again. New connections are treated as set.
    /// Returns the number of silenced connections.
    pub fn silence_open(&self) -> usize {
        let (in_force, answer) = mpsc::channel();
        let commands = self.commands.as_ref();
        let sent = commands.is_some_and(|commands| commands.send(Command::SilenceOpen(in_force)).is_ok());
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
        drop(self.commands.take());
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
    /// Watched by the connections that are not silenced yet.
    silenced: watch::Sender<()>,
    connections: JoinSet<()>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    async fn run(mut self, listener: std::net::TcpListener, mut inbox: UnboundedReceiver<Command>) {
        self.listener = TcpListener::from_std(listener).ok();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Traffic(traffic, in_force)) => {
                        let _ = in_force.send(self.enforce(traffic).await);
                    }
                    Some(Command::SilenceOpen(in_force)) => {
                        let speaking = self.silenced.receiver_count();
                        // As with traffic, connections check it before each byte.
                        self.silenced.send_replace(());
                        let _ = in_force.send(speaking);
                    }
                    None => return,
                },
                client = accept(self.listener.as_ref()) => self.handle(client),
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
        // In force at once: connections run on this thread and check it before each byte that they forward.
        self.traffic.send_replace(traffic);
        if resets {
            self.connections.shutdown().await;
        }
        Ok(())
    }

    fn handle(&mut self, client: TcpStream) {
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

/// Accepts a client. On an error, such as too few file descriptors, the client waits in the backlog.
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

/// Listens again. Earlier connections do not block the port, but another program may.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let since = std::time::Instant::now();
    loop {
        match bind(port) {
            Err(_) if since.elapsed() < LISTEN_LIMIT => tokio::time::sleep(Duration::from_millis(10)).await,
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
