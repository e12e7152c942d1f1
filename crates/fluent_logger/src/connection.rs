//! One connection to the server: write chunks, read acknowledgements.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ack::{self, Unexpected};
use crate::buffer::Chunk;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is silent while there is nothing to log: what is on the way must not forget it, and a server that vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(10);
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(20);

/// Why a connection could not be had, or is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("could not connect: {0}")]
    Connect(io::Error),
    #[error("could not connect within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server took no data for {0:?}")]
    WriteTimeout(Duration),
    #[error("the server did not acknowledge within {0:?}")]
    AckTimeout(Duration),
    #[error("the server acknowledged a chunk that it was not sent")]
    UnknownChunk,
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(host: &str, port: u16) -> Result<Self, Fault> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
            .await
            .map_err(|_| Fault::ConnectTimeout)?
            .map_err(Fault::Connect)?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE)
                .with_retries(2),
        )?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_FOR))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Watches a connection that owes no answer: completes when it ends or says anything.
    pub(crate) async fn fault(&mut self) -> Fault {
        match self.watch().await {
            Err(fault) => fault,
            Ok(never) => match never {},
        }
    }

    async fn watch(&mut self) -> Result<Infallible, Fault> {
        loop {
            self.receive().await?;
            if ack::take(&mut self.received)?.is_some() {
                return Err(Fault::UnknownChunk);
            }
        }
    }

    /// Sends all chunks, then removes each as it is acknowledged, in whatever order that happens. After a fault
    /// the chunks left are those to send again. `patience` is how long the server may make no progress.
    pub(crate) async fn deliver(
        &mut self,
        chunks: &mut Vec<Chunk>,
        patience: Duration,
        mut acknowledged: impl FnMut(&Chunk),
    ) -> Result<(), Fault> {
        for chunk in chunks.iter() {
            self.write(&chunk.message, patience).await?;
        }
        let mut places: HashMap<String, usize> = chunks
            .iter()
            .enumerate()
            .map(|(place, chunk)| (chunk.id.clone(), place))
            .collect();
        while !chunks.is_empty() {
            let id = timeout(patience, self.ack())
                .await
                .map_err(|_| Fault::AckTimeout(patience))??;
            let place = places.remove(&id).ok_or(Fault::UnknownChunk)?;
            acknowledged(&chunks.swap_remove(place));
            if let Some(moved) = chunks.get(place) {
                places.insert(moved.id.clone(), place);
            }
        }
        Ok(())
    }

    /// The limit is on progress, not on the whole: a slow server that still takes data is left in peace.
    async fn write(&mut self, mut bytes: &[u8], patience: Duration) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let written = timeout(patience, self.stream.write(bytes))
                .await
                .map_err(|_| Fault::WriteTimeout(patience))??;
            if written == 0 {
                return Err(Fault::Closed);
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(id) = ack::take(&mut self.received)? {
                return Ok(id);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Fault> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes).await? {
            0 => Err(Fault::Closed),
            read => {
                self.received.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}
