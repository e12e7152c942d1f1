//! One connection to the server: writes chunks and reads acknowledgements.

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

/// A connection is idle while there is nothing to log. Keepalive probes show middleboxes that it is in use, and the kernel closes it when the
/// server has vanished.
const KEEPALIVE: Duration = Duration::from_secs(10);
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a connection could not be opened, or can no longer be used.
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
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Waits for a fault of a connection on which no answer is due: it ends, or the server sends anything.
    pub(crate) async fn fault(&mut self) -> Fault {
        match self.expect_nothing().await {
            Err(fault) => fault,
            Ok(never) => match never {},
        }
    }

    async fn expect_nothing(&mut self) -> Result<Infallible, Fault> {
        loop {
            self.receive().await?;
            if ack::take(&mut self.received)?.is_some() {
                return Err(Fault::UnknownChunk);
            }
        }
    }

    /// Sends all chunks, then removes each one when it is acknowledged, in any order. After a fault the remaining
    /// chunks have to be sent again. `progress_timeout` is how long the server may make no progress.
    pub(crate) async fn deliver(
        &mut self,
        chunks: &mut Vec<Chunk>,
        progress_timeout: Duration,
        mut acknowledged: impl FnMut(&Chunk),
    ) -> Result<(), Fault> {
        for chunk in chunks.iter() {
            self.write(&chunk.message, progress_timeout).await?;
        }
        let mut indexes: HashMap<String, usize> = chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| (chunk.id.clone(), index))
            .collect();
        while !chunks.is_empty() {
            let id = timeout(progress_timeout, self.ack())
                .await
                .map_err(|_| Fault::AckTimeout(progress_timeout))??;
            let index = indexes.remove(&id).ok_or(Fault::UnknownChunk)?;
            acknowledged(&chunks.swap_remove(index));
            if let Some(moved) = chunks.get(index) {
                indexes.insert(moved.id.clone(), index);
            }
        }
        Ok(())
    }

    /// The timeout is for progress and not for the whole write: a server may be slow as long as it takes data.
    async fn write(&mut self, mut bytes: &[u8], progress_timeout: Duration) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let written = timeout(progress_timeout, self.stream.write(bytes))
                .await
                .map_err(|_| Fault::WriteTimeout(progress_timeout))??;
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
