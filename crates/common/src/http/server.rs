//! The HTTP server. Not `axum::serve`, which limits neither the number of connections nor the time that a client takes for its headers
//! (tokio-rs/axum #2741).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::always_answer::{Shutdown, always_answer};
use super::connection::Service;
use super::connection_limit::{ConnectionLimit, MAX_CONNECTIONS, MAX_CONNECTIONS_OF_OPERATORS, Permit};
use super::context::handle_in_context;
use super::measure::{HTTP, measure};
use super::refusal::{refusals, reject_malformed};
use super::routes::Routes;
use crate::endpoints::Listen;
use crate::metrics::count_in;
use crate::tls::Identity;

/// Pause after a failed accept. The usual reason is a lack of file descriptors, and a closing connection frees one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After the signal connections stay open for this long, so that a request that is on its way gets an answer instead of a closed connection.
/// Each answer says `connection: close`.
const LAME_DUCK: Duration = Duration::from_millis(100);

/// A client that takes no byte of an answer for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that are still in flight this long after the signal are answered with `503`: they typically wait for another service, and if the
/// process just ended, their clients would get no answer. Shorter than the drain deadline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// The address to listen on is taken, unknown, or not of this machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}")]
pub struct CannotListen {
    host: String,
    port: u16,
    source: std::io::Error,
}

/// The ports of a service.
#[derive(Debug)]
pub struct Listeners {
    clients: Listener,
    /// `None`: operators ask on the port of the clients.
    operators: Option<Listener>,
}

/// A port that accepts connections: HTTPS if the service has a certificate, else HTTP.
#[derive(Debug)]
struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

/// Binds the addresses that a service listens on.
///
/// # Errors
/// [`CannotListen`]; or TLS cannot be set up.
pub async fn bind(listen: &Listen) -> anyhow::Result<Listeners> {
    Ok(Listeners {
        clients: bind_port(listen, listen.port).await?,
        operators: match listen.ops_port {
            Some(port) => Some(bind_port(listen, port).await?),
            None => None,
        },
    })
}

async fn bind_port(listen: &Listen, port: u16) -> anyhow::Result<Listener> {
    let Listen { host, identity, .. } = listen.clone();
    let tls = identity.map(Identity::server_config).transpose()?;
    let tcp = TcpListener::bind((host.as_str(), port))
        .await
        .map_err(|source| CannotListen { host, port, source })?;
    Ok(Listener {
        tcp,
        tls: tls.map(Arc::new),
    })
}

/// Serves requests until asked to stop. Then it accepts no more, and ends when the requests in flight are answered.
pub fn serve(
    listeners: Listeners,
    routes: Routes,
    stopping: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    let Routes { clients, operators } = routes;
    let (clients, apart) = match listeners.operators {
        None => (clients.merge(operators), None),
        Some(listener) => (
            clients,
            Some(serve_port(
                listener,
                operators,
                MAX_CONNECTIONS_OF_OPERATORS,
                stopping.clone(),
            )),
        ),
    };
    let clients = serve_port(listeners.clients, clients, MAX_CONNECTIONS, stopping);
    async {
        let apart = async {
            match apart {
                Some(serving) => serving.await,
                None => Ok(()),
            }
        };
        tokio::try_join!(clients, apart).map(drop)
    }
    .boxed()
}

/// Each port has its own limit of connections, so clients cannot take those of the operators.
fn serve_port(
    listener: Listener,
    router: Router,
    max_connections: usize,
    stopping: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let shutdown = Shutdown {
        stopping: stopping.clone(),
        overdue: CancellationToken::new(),
    };
    let with_layers = |router: Router| {
        router
            .layer(from_fn_with_state(shutdown.clone(), always_answer))
            .layer(from_fn(measure))
            .layer(from_fn(handle_in_context))
    };
    Server {
        service: Service {
            router: with_layers(router.layer(from_fn(reject_malformed))),
            refusals: with_layers(refusals()),
            tls: listener.tls,
            closing: CancellationToken::new(),
            overdue: shutdown.overdue.clone(),
        },
        open: TaskTracker::new(),
        limit: ConnectionLimit::new(max_connections),
    }
    .run(listener.tcp, stopping)
}

struct Server {
    service: Service,
    open: TaskTracker,
    limit: Arc<ConnectionLimit>,
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
                    Some(permit) = self.limit.acquire() => self.serve(stream, permit),
                    () = stopping.cancelled() => break,
                },
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // The kernel has already connected these clients. Without this they would see a reset instead of an answer.
        while let Some(Ok((stream, _peer))) = listener.accept().now_or_never()
            && let Some(permit) = self.limit.try_acquire()
        {
            self.serve(stream, permit);
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

    fn serve(&self, stream: TcpStream, permit: Permit) {
        // An answer is one small write, which must not wait for the acknowledgement of the one before. A connection without these options
        // still works.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
        let service = self.service.clone();
        self.open.spawn(async move {
            let _open = count_in(&HTTP.connections);
            service.serve(stream, permit).await;
        });
    }
}
