//! One connection to the broker.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::CompatExt as _;
use async_rs::Runtime;
use async_rs::traits::RuntimeKit;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ConnectionStatus};
use socket2::{SockRef, Socket};
use tokio::time::timeout;

use super::{Error, encryption, in_time, topology};
use crate::{endpoints, net};

/// For each address of the broker's name: TCP sends a lost packet again within the first second.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that is silent for two heartbeats is gone; without heartbeats a cut cable would never be noticed. With pauses and a new connection
/// this stays below the 30 s within which everything works again.
const HEARTBEAT_S: u16 = 6;
/// RabbitMQ's own default. We ask for it from the start, because lapin sizes its buffers (8 MiB a connection) by it. When lapin learns the
/// size from the broker it grows the buffers instead, which touches every page and makes unused memory resident (measured).
const FRAME_MAX_BYTES: u32 = 128 * 1024;

/// How a process connects, and what it needs there.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Address, credentials, and the exchange of the events.
    pub endpoint: endpoints::Queue,
    /// The queue that has to be there, with its dead-letter queue. Its name is also its routing key.
    pub queue: &'static str,
    /// The name of the connection in the management UI, in `/metrics` and in `/readyz`.
    pub name: &'static str,
}

/// The size of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are not delivered to a consumer.
    pub ready: u32,
    /// How many consumers there are.
    pub consumers: u32,
}

/// One connection to the broker. It is never repaired, only replaced.
///
/// # Errors
/// Every method that asks the broker fails when the connection fails or the broker hangs.
#[derive(Debug)]
pub struct Session {
    connector: Connector,
    connection: Arc<Connection>,
    _hang_up: HangUp,
}

/// Ends the TCP connection when it is dropped. Without it, lapin's thread and socket would outlive a dropped session, or a cancelled attempt
/// to connect, for as long as the broker neither speaks nor closes: each attempt at a broker that hangs would leave one of each.
#[derive(Debug)]
struct HangUp(Socket);

impl Drop for HangUp {
    fn drop(&mut self) {
        // Fails if the connection has already ended.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Session {
    /// Connects once, and checks that exchanges and queues exist.
    ///
    /// # Errors
    /// When the broker is away, refuses the login or hangs, or an exchange or a queue is missing.
    pub async fn open(connector: &Connector) -> Result<Self, Error> {
        let session = Self::connect(connector).await?;
        let channel = session.channel().await?;
        let Connector { endpoint, queue, .. } = connector;
        let check = topology::check(&channel, &endpoint.exchange, queue);
        match in_time("look for exchanges and queues", check).await {
            Err(Error::Amqp(error)) => Err(match refusal(&error, AMQPSoftError::NOTFOUND) {
                Some(reply) => Error::Missing { reply },
                None => Error::Amqp(error),
            }),
            checked => {
                checked?;
                close(&channel).await?;
                Ok(session)
            }
        }
    }

    /// Connects once, and declares everything: see [`Session::declare`].
    ///
    /// # Errors
    /// When the broker is away, refuses the login or hangs; and as [`Session::declare`].
    pub async fn open_declaring(connector: &Connector) -> Result<Self, Error> {
        let session = Self::connect(connector).await?;
        session.declare().await?;
        Ok(session)
    }

    /// Boxed, so that lapin's connection is compiled in this crate alone, and not in each that connects.
    fn connect(connector: &Connector) -> BoxFuture<'_, Result<Self, Error>> {
        async move {
            let Connector { endpoint, name, .. } = connector;
            let stream = net::connect((endpoint.host.as_str(), endpoint.port), ADDRESS_TIMEOUT).await?;
            let hang_up = HangUp(SockRef::from(&stream).try_clone()?);
            let uri = uri(endpoint);
            let connection = if endpoint.encrypted {
                let stream = encryption::encrypt(stream, endpoint).await?.compat();
                in_time("log in", log_in(stream, encryption::runtime(), uri, name)).await?
            } else {
                let runtime = lapin::runtime::default_runtime()?;
                in_time("log in", log_in(stream.compat(), runtime, uri, name)).await?
            };
            Ok(Self {
                connector: connector.clone(),
                connection: Arc::new(connection),
                _hang_up: hang_up,
            })
        }
        .boxed()
    }

    /// Declares exchanges, queues and bindings. What exists already stays as it is.
    ///
    /// If something of these names exists with other options, the queue gets no more messages: publishers cannot see the options, and would
    /// delete from the outbox what a lesser queue has confirmed and then loses.
    ///
    /// # Errors
    /// [`Error::DeclaredOtherwise`]; or when the user may not declare, or the connection fails.
    pub async fn declare(&self) -> Result<(), Error> {
        let Connector { endpoint, queue, .. } = &self.connector;
        let channel = self.channel().await?;
        let declare = topology::declare(&channel, &endpoint.exchange, queue);
        match in_time("declare the topology", declare).await {
            Ok(()) => close(&channel).await,
            Err(Error::Amqp(error)) => match refusal(&error, AMQPSoftError::PRECONDITIONFAILED) {
                Some(reply) => {
                    let channel = self.channel().await?;
                    // Fails if there is nothing to unbind.
                    let _ = in_time("unbind", topology::unbind(&channel, &endpoint.exchange, queue)).await;
                    Err(Error::DeclaredOtherwise { reply })
                }
                None => Err(Error::Amqp(error)),
            },
            Err(error) => Err(error),
        }
    }

    /// The maximum size of a frame in bytes. The headers of a message have to fit into one.
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
    /// When the queue is away.
    pub async fn depth(&self, queue_name: &str) -> Result<Depth, Error> {
        let channel = self.channel().await?;
        let depth = depth(&channel, topology::short(queue_name)).await?;
        close(&channel).await?;
        Ok(depth)
    }

    /// Tells the size of queues, also while somebody else uses the session.
    #[must_use]
    pub fn depths(&self) -> Depths {
        Depths {
            connection: Arc::clone(&self.connection),
            channel: None,
        }
    }

    /// Whether an exchange of this name exists: publishing to a missing one would end the channel.
    pub async fn has_exchange(&self, name: &str) -> Result<bool, Error> {
        // The default exchange always exists, and a passive declaration of it is refused.
        if name.is_empty() {
            return Ok(true);
        }
        let channel = self.channel().await?;
        let check = topology::check_exchange(&channel, name);
        match in_time("ask for an exchange", check).await {
            Ok(()) => close(&channel).await.map(|()| true),
            Err(Error::Amqp(error)) if refusal(&error, AMQPSoftError::NOTFOUND).is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The state of the connection. lapin keeps it up to date.
    pub(super) fn status(&self) -> ConnectionStatus {
        self.connection.status().clone()
    }

    /// Closes the connection, so that the broker requeues unacknowledged deliveries at once. Waits for up to a second.
    pub async fn close(self) {
        // A failure has no consequence: dropping the connection ends it too.
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "stopping".into())).await;
    }

    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        in_time("open a channel", self.connection.create_channel()).await
    }
}

/// Tells the size of queues, on a channel of its own.
#[derive(Debug)]
pub struct Depths {
    connection: Arc<Connection>,
    channel: Option<Channel>,
}

impl Depths {
    /// The size of a queue. It needs no permission.
    ///
    /// # Errors
    /// When the queue or the connection is away, or the broker hangs.
    pub async fn of(&mut self, queue_name: &str) -> Result<Depth, Error> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => in_time("open a channel", self.connection.create_channel()).await?,
        };
        let depth = depth(&channel, topology::short(queue_name)).await?;
        // The broker ends the channel if the queue is missing: then the next one is asked for on another.
        self.channel = Some(channel);
        Ok(depth)
    }
}

/// Over a stream that is connected, and encrypted where that is wanted: lapin does neither.
async fn log_in<K: RuntimeKit + Clone + Send + 'static>(
    stream: K::TcpStream,
    runtime: Runtime<K>,
    uri: AMQPUri,
    name: &str,
) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let stream = Mutex::new(Some(stream));
    let connect = async move |_uri, _runtime| {
        // lapin calls this once: its own recovery is off.
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(AsyncTcpStream::Plain(stream))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

pub(super) async fn depth(channel: &Channel, queue_name: ShortString) -> Result<Depth, Error> {
    let options = QueueDeclareOptions::durable().passive();
    let declare = channel.queue_declare(queue_name, options, FieldTable::default());
    let queue = in_time("ask for the depth of a queue", declare).await?;
    Ok(Depth {
        ready: queue.message_count(),
        consumers: queue.consumer_count(),
    })
}

/// Dropping a channel closes it too, but later, and lapin reports an error if the connection is closed before that.
pub(super) async fn close(channel: &Channel) -> Result<(), Error> {
    in_time("close a channel", channel.close(200, "done".into())).await
}

/// The broker's words, if it refused for this reason.
fn refusal(error: &lapin::Error, reason: AMQPSoftError) -> Option<String> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) if refusal.get_id() == reason.get_id() => {
            Some(refusal.get_message().to_string())
        }
        _ => None,
    }
}

/// Built from parts and not parsed from text: no character in a password or vhost needs escaping.
fn uri(queue: &endpoints::Queue) -> AMQPUri {
    AMQPUri {
        // lapin does not look at it: the stream is encrypted by us.
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
