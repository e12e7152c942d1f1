//! One connection to the broker, with the topology declared.

use std::io;
use std::net::Shutdown;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_compat::CompatExt as _;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ConnectionStatus, ExchangeKind};
use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

use super::{Error, topology, within};
use crate::{endpoints, net};

/// Each address of the broker's name gets so long: a packet that was lost is sent again within the first second.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);
/// A broker that is reachable answers within milliseconds; more than this is a broker that hangs.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// A peer that is silent for two of these is gone; without it a cut cable would go unnoticed for ever. With pauses and a new connection it
/// leaves room below the 30 s within which everything works again.
const HEARTBEAT_S: u16 = 6;
/// RabbitMQ's own default. Asked for from the start, because lapin sizes its buffers (8 MiB a connection) by it: when it learns the
/// size from the broker it grows them instead, which writes to every page, and memory that nobody needs becomes resident (measured).
const FRAME_MAX_BYTES: u32 = 128 * 1024;

/// AMQP's reply code for what does not exist.
const NOT_FOUND: u16 = 404;
/// AMQP's reply code for a declaration that differs from what is there.
const PRECONDITION_FAILED: u16 = 406;

/// What a queue holds, and who takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that no consumer holds.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// One connection to the broker; it is never repaired, only replaced.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    _hang_up: HangUp,
}

/// Ends the TCP connection when it is dropped. Without it lapin's thread and socket live on, when a session or an attempt at one is given
/// up, for as long as the broker neither speaks nor closes: a broker that hangs would collect one of each per attempt.
#[derive(Debug)]
struct HangUp(Socket);

impl Drop for HangUp {
    fn drop(&mut self) {
        // It fails where the connection has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Session {
    /// Connects, naming the connection `name` in the management UI, and declares the topology.
    ///
    /// # Errors
    /// When the broker is away, refuses the login, hangs, or has other ideas about the topology.
    pub async fn open(queue: &endpoints::Queue, name: &str) -> Result<Self, Error> {
        let stream = net::connect(&queue.host, queue.port, ADDRESS_LIMIT).await?;
        let hang_up = HangUp(SockRef::from(&stream).try_clone()?);
        let log_in = log_in(stream, uri(queue), name);
        let session = Self {
            connection: within(CONNECT_LIMIT, "log in", log_in).await?,
            _hang_up: hang_up,
        };
        session.declare(queue).await?;
        Ok(session)
    }

    async fn declare(&self, queue: &endpoints::Queue) -> Result<(), Error> {
        let channel = self.channel().await?;
        declared(topology::declare(&channel, queue)).await?;
        close(&channel).await
    }

    /// Makes sure that exchanges and queues are still those that were declared.
    ///
    /// # Errors
    /// [`Error::DeclaredOtherwise`]; or when the connection fails or the broker hangs.
    pub async fn check_declarations(&self, queue: &endpoints::Queue) -> Result<(), Error> {
        let channel = self.channel().await?;
        declared(topology::declare_unbound(&channel, queue)).await?;
        close(&channel).await
    }

    /// The most bytes that a frame may have, and so the headers of a message.
    #[must_use]
    pub fn frame_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// Whether the connection is still up, as far as is known.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// How many messages of a queue are ready for delivery, and how many consumers it has.
    ///
    /// # Errors
    /// When the connection fails, the queue is away, or the broker hangs.
    pub async fn depth(&self, queue_name: &str) -> Result<Depth, Error> {
        let channel = self.channel().await?;
        let depth = depth(&channel, topology::short(queue_name)).await?;
        close(&channel).await?;
        Ok(depth)
    }

    /// Whether there is an exchange of this name: publishing to none would end the channel.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn has_exchange(&self, name: &str) -> Result<bool, Error> {
        // The default exchange cannot be asked for, and is always there.
        if name.is_empty() {
            return Ok(true);
        }
        let channel = self.channel().await?;
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let declare = channel.exchange_declare(
            topology::short(name),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        );
        match within(CONNECT_LIMIT, "ask for an exchange", declare).await {
            Ok(()) => close(&channel).await.map(|()| true),
            Err(Error::Amqp(error)) if refusal(&error, NOT_FOUND).is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The state of the connection, as it changes.
    pub(super) fn status(&self) -> ConnectionStatus {
        self.connection.status().clone()
    }

    /// Says goodbye, so that the broker requeues what is not acknowledged at once; does not wait for a broker that hangs.
    pub async fn close(self) {
        // A failed goodbye has no consequence: dropping the connection says the same less politely.
        let _ = within(
            CLOSE_LIMIT,
            "close",
            self.connection.close(200, "stopping".into()),
        )
        .await;
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        within(CONNECT_LIMIT, "open a channel", self.connection.create_channel()).await
    }
}

async fn log_in(stream: TcpStream, uri: AMQPUri, name: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let stream = Mutex::new(Some(stream));
    let connect = async move |_uri, _runtime| {
        // lapin asks once: it neither recovers a connection nor tries one again, unless it is told to.
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(AsyncTcpStream::Plain(stream.compat()))
    };
    Connection::connector(uri, lapin::runtime::default_runtime()?, connect, properties).await
}

/// The depth of a queue, asked for on this channel.
pub(super) async fn depth(channel: &Channel, queue_name: ShortString) -> Result<Depth, Error> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let declare = channel.queue_declare(queue_name, options, FieldTable::default());
    let queue = within(CONNECT_LIMIT, "ask for the depth of a queue", declare).await?;
    Ok(Depth {
        ready: queue.message_count(),
        consumers: queue.consumer_count(),
    })
}

/// A channel that is dropped is closed as well, but in its own time, and a goodbye of the connection meanwhile is reported as an error.
pub(super) async fn close(channel: &Channel) -> Result<(), Error> {
    within(
        CONNECT_LIMIT,
        "close a channel",
        channel.close(200, "done".into()),
    )
    .await
}

async fn declared(declare: impl Future<Output = lapin::Result<()>>) -> Result<(), Error> {
    match within(CONNECT_LIMIT, "declare the topology", declare).await {
        Err(Error::Amqp(error)) => Err(match refusal(&error, PRECONDITION_FAILED) {
            Some(reply) => Error::DeclaredOtherwise { reply },
            None => Error::Amqp(error),
        }),
        outcome => outcome,
    }
}

/// What the broker said, where it refused with this code.
fn refusal(error: &lapin::Error, code: u16) -> Option<String> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) if refusal.get_id() == code => {
            Some(refusal.get_message().to_string())
        }
        _ => None,
    }
}

/// Built from its parts, not from a text: no character in a password or vhost needs escaping.
fn uri(queue: &endpoints::Queue) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: queue.user.clone(),
                password: queue.password.expose(),
            },
            host: queue.host.clone(),
            port: queue.port,
        },
        vhost: queue.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT_S),
            frame_max: Some(FRAME_MAX_BYTES),
            ..AMQPQueryString::default()
        },
    }
}
