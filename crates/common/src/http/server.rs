//! The listener. `axum::serve` has no limit on the time a client takes over its headers (tokio-rs/axum #2741), nor on connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Service;
use super::context::handle_in_context;
use super::measure::{HTTP, measure};
use super::refusal::{refusals, screen};
use super::seats::{Seat, Seats};
use super::watch::{Stages, watch};
use crate::endpoints::Listen;
use crate::metrics::Held;

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
    let observed = |router: Router| {
        router
            .layer(from_fn_with_state(stages.clone(), watch))
            .layer(from_fn(measure))
            .layer(from_fn(handle_in_context))
    };
    Server {
        service: Service {
            router: observed(router.layer(from_fn(screen))),
            refusals: observed(refusals()),
            closing: CancellationToken::new(),
            overdue: stages.overdue.clone(),
        },
        open: TaskTracker::new(),
        seats: Seats::new(),
    }
    .run(listener, stopping)
}

struct Server {
    service: Service,
    open: TaskTracker,
    seats: Arc<Seats>,
}

impl Server {
    async fn run(self, listener: TcpListener, stopping: CancellationToken) -> anyhow::Result<()> {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.cancelled() => break,
            };
            match accepted {
                Ok((stream, _peer)) => tokio::select! {
                    seat = Arc::clone(&self.seats).take() => self.serve(stream, seat),
                    () = stopping.cancelled() => break,
                },
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Clients that the system has connected already would see a reset instead of an answer.
        while let Some(Ok((stream, _peer))) = listener.accept().now_or_never()
            && let Some(seat) = Arc::clone(&self.seats).try_take()
        {
            self.serve(stream, Some(seat));
        }
        drop(listener);
        self.open.close();
        if !self.open.is_empty() {
            tokio::time::sleep(LAME_DUCK).await;
        }
        self.service.closing.cancel();
        if timeout(ANSWER_DEADLINE, self.open.wait()).await.is_err() {
            self.service.overdue.cancel();
            self.open.wait().await;
        }
        Ok(())
    }

    fn serve(&self, stream: TcpStream, seat: Option<Seat>) {
        let Some(seat) = seat else { return };
        // An answer is one small write, which must not wait for the acknowledgement of the one before. Without these options it works too.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
        let service = self.service.clone();
        self.open.spawn(async move {
            let _open = Held::on(&HTTP.connections);
            service.serve(stream, seat).await;
        });
    }
}
