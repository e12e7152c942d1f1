//! The listener. `axum::serve` has no limit on the time a client takes over its headers (tokio-rs/axum #2741), nor on connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::context::handle_in_context;
use super::measure::{HTTP, measure};
use super::watch::{Stages, watch};
use crate::endpoints::Listen;
use crate::metrics::Held;

/// Longer than clients of the cluster keep an idle connection, so that it is they who close it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(45);

const MOST_CONNECTIONS: usize = 4096;

/// Of what a connection has sent and is not yet read, and so of its headers: with hyper's own bound of some 400 KB the connections could
/// hold more memory than a container has.
const MOST_BUFFERED_BYTES: usize = 32 * 1024;

/// After a failed accept, typically for want of file descriptors, which a closing connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After the signal connections stay open this long, so that a request that is on its way is answered instead of meeting a closed
/// connection. Each answer says `connection: close`.
const LAME_DUCK: Duration = Duration::from_millis(100);

/// A client that takes no answer for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request still in hand this long after the process was asked to stop, typically one that waits for another service, is answered
/// with `503`: a process that just ended would leave its client without an answer. Shorter than the drain deadline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// The address of a service is taken, unknown, or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}")]
pub struct CannotListen {
    host: String,
    port: u16,
    source: std::io::Error,
}

/// Binds the address that a service listens on.
///
/// # Errors
/// [`CannotListen`].
pub async fn bind(listen: &Listen) -> Result<TcpListener, CannotListen> {
    let Listen { host, port } = listen;
    TcpListener::bind((host.as_str(), *port))
        .await
        .map_err(|source| CannotListen {
            host: host.clone(),
            port: *port,
            source,
        })
}

/// Serves requests until asked to stop; then accepts no more, and ends when those in flight are answered. Every request is answered, in
/// the form of all answers, whatever its handler does.
pub fn serve(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let stages = Stages {
        stopping: stopping.clone(),
        overdue: CancellationToken::new(),
    };
    Server {
        router: router
            .layer(from_fn_with_state(stages.clone(), watch))
            .layer(from_fn(measure))
            .layer(from_fn(handle_in_context)),
        overdue: stages.overdue,
        open: GracefulShutdown::new(),
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
    }
    .run(listener, stopping)
}

struct Server {
    router: Router,
    overdue: CancellationToken,
    open: GracefulShutdown,
    places: Arc<Semaphore>,
}

impl Server {
    async fn run(self, listener: TcpListener, stopping: CancellationToken) -> anyhow::Result<()> {
        loop {
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place?,
                () = stopping.cancelled() => break,
            };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _peer)) => self.answer(stream, place),
                    Err(error) => {
                        tracing::warn!("a connection could not be accepted: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = stopping.cancelled() => break,
            }
        }
        // Clients that the system has connected already would see a reset instead of an answer.
        while let (Some(Ok((stream, _peer))), Ok(place)) = (
            listener.accept().now_or_never(),
            Arc::clone(&self.places).try_acquire_owned(),
        ) {
            self.answer(stream, place);
        }
        drop(listener);
        if self.open.count() > 0 {
            tokio::time::sleep(LAME_DUCK).await;
        }
        let answered = self.open.shutdown();
        tokio::pin!(answered);
        if timeout(ANSWER_DEADLINE, &mut answered).await.is_err() {
            self.overdue.cancel();
            answered.await;
        }
        Ok(())
    }

    fn answer(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // An answer is one small write, which must not wait for the acknowledgement of the one before. Without these options it works too.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MOST_BUFFERED_BYTES)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(self.router.clone()),
            );
        let connection = self.open.watch(connection);
        tokio::spawn(async move {
            let _open = Held::on(&HTTP.connections);
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended early: {error}");
            }
            drop(place);
        });
    }
}
