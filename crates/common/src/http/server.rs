//! The listener. `axum::serve` has no limit on the time a client takes over its headers (tokio-rs/axum #2741), nor on connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::endpoints::Listen;

/// Longer than clients of the cluster keep an idle connection, so that it is they who close it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(45);

const MOST_CONNECTIONS: usize = 4096;

/// After a failed accept, typically for want of file descriptors, which a closing connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the address that a service listens on.
///
/// # Errors
/// When the address is taken, unknown, or not this machine's; the text names it.
pub async fn bind(listen: &Listen) -> anyhow::Result<TcpListener> {
    let Listen { host, port } = listen;
    TcpListener::bind((host.as_str(), *port))
        .await
        .with_context(|| format!("cannot listen on {host}:{port}"))
}

/// Serves requests until asked to stop; then accepts no more, and ends when those in flight are answered.
pub fn serve(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    Server {
        router,
        open: GracefulShutdown::new(),
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
    }
    .run(listener, stopping)
}

struct Server {
    router: Router,
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
        self.open.shutdown().await;
        Ok(())
    }

    fn answer(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // An answer is one small write, which must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(self.router.clone()),
            );
        let connection = self.open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended early: {error}");
            }
            drop(place);
        });
    }
}
