//! One connection of a client. hyper reads its requests and writes the answers. hyper itself refuses some requests, with an answer that has
//! no body and is not logged: those are answered here in our form instead.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::{self, Parts};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection_limit::Permit;
use super::refusal::Refusal;
use super::request_body::{
    DRAIN_BYTES, DRAIN_SILENCE, DRAIN_TIME, RequestBody, least_bytes, waits_for_continue,
};
use super::transport::{Socket, Transport};

/// Longer than the clients of the cluster keep an idle connection, so that the client closes it, and not the server.
const HEADER_TIMEOUT: Duration = Duration::from_secs(45);

/// For TLS, from the first byte: a client that works needs two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for what a connection has sent and is not yet read, and so for its headers. With hyper's own limit of about 400 KB the connections
/// could take more memory than a container has.
const MAX_BUFFERED_BYTES: usize = 16 * 1024;

/// What the connections of a listener share.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// Answers requests.
    pub(super) router: Router,
    /// Answers what is not a valid request.
    pub(super) refusals: Router,
    /// Agrees on TLS, if the service has a certificate.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Cancelled when connections take no further requests.
    pub(super) closing: CancellationToken,
    /// Cancelled when the process can no longer wait for requests in flight.
    pub(super) overdue: CancellationToken,
}

impl Service {
    /// Serves a connection to its end. The memory for that is allocated when the first byte arrives: most connections are idle.
    pub(super) async fn serve(self, socket: TcpStream, permit: Permit) {
        let mut first = [0];
        let begun = timeout(HEADER_TIMEOUT, socket.peek(&mut first));
        let begun = permit.shed.run_until_cancelled(begun);
        if let Some(Some(Ok(Ok(_)))) = self.closing.run_until_cancelled(begun).await {
            Box::pin(self.serve_begun(Arc::new(socket), Arc::new(permit))).await;
        }
    }

    async fn serve_begun(&self, socket: Arc<TcpStream>, permit: Arc<Permit>) {
        let watched = Socket(Arc::clone(&socket));
        let transport = match &self.tls {
            None => Some(Transport::Plain(watched)),
            // Boxed, because a connection would keep the room for a handshake until it ends.
            Some(config) => Box::pin(self.agree_on_tls(Arc::clone(config), watched, &permit)).await,
        };
        if let Some(transport) = transport {
            self.serve_requests(socket, transport, permit).await;
        }
    }

    async fn agree_on_tls(
        &self,
        config: Arc<ServerConfig>,
        socket: Socket,
        permit: &Permit,
    ) -> Option<Transport> {
        let agreed = timeout(HANDSHAKE_TIMEOUT, Transport::agree_on_tls(config, socket));
        let agreed = permit.shed.run_until_cancelled(agreed);
        match self.closing.run_until_cancelled(agreed).await {
            Some(Some(Ok(Ok(transport)))) => Some(transport),
            // Also a client that does not speak TLS.
            Some(Some(Ok(Err(error)))) => {
                tracing::debug!("no TLS with a client: {error}");
                None
            }
            _ => None,
        }
    }

    async fn serve_requests(&self, socket: Arc<TcpStream>, transport: Transport, permit: Arc<Permit>) {
        let stream = Stream {
            transport,
            permit: Arc::clone(&permit),
            refused: None,
            flushed: true,
            encrypted: 0,
        };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_BUFFERED_BYTES)
            // A client may close its sending side when it has sent its request (RFC 9112, 9.6).
            .half_close(true)
            .serve_connection(
                TokioIo::new(stream),
                // Boxed, because hyper reserves the size of this future from the start.
                service_fn(|request| Box::pin(self.answer(request, Arc::clone(&permit)))),
            );
        let mut is_closing = false;
        let ended = loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled(), if !is_closing => {
                    is_closing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                ended = &mut connection => break Ended::ByItself(ended),
                () = permit.shed.cancelled() => break Ended::Shed,
                // While a request is handled, hyper does not notice that its client has reset the connection.
                () = reset(&socket) => break Ended::Reset,
            }
        };
        let Parts { io, read_buf, .. } = connection.into_parts();
        let mut stream = io.into_inner();
        let is_cut = matches!(ended, Ended::Shed | Ended::Reset);
        let refusal = match ended {
            Ended::ByItself(Err(error)) => {
                tracing::debug!("a connection ended early: {error}");
                Refusal::of(stream.refused, &error, &read_buf)
            }
            Ended::Shed if permit.owes_an_answer() => Some(Refusal::SHED),
            _ => None,
        };
        if let Some(refusal) = refusal.filter(|_| stream.flushed) {
            self.refuse(&mut stream.transport, refusal).await;
        }
        // Its buffers are not needed any more.
        drop(stream);
        if !is_cut {
            let _ = SockRef::from(&*socket).shutdown(Shutdown::Write);
            let lingered = permit.shed.run_until_cancelled(linger(&socket));
            let _ = self.closing.run_until_cancelled(lingered).await;
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        permit: Arc<Permit>,
    ) -> Result<Response<Body>, Infallible> {
        permit.headers_received(least_bytes(&request));
        let (head, body) = request.into_parts();
        let waits = waits_for_continue(&head.headers);
        let is_drained = !waits && !body.is_end_stream();
        let overdue = is_drained.then(|| self.overdue.clone());
        let body = RequestBody::new(body, Arc::clone(&permit), overdue);
        let router = TowerToHyperService::new(self.router.clone());
        let mut response = router.call(Request::from_parts(head, body)).await?;
        if waits && !permit.is_request_received() {
            // The client may or may not send the body now, so the next bytes could be a body or a request.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        // The service may write to a stream at any time, so its connection is not idle before the client sends another request.
        if let Some(bytes) = response.body().size_hint().exact() {
            permit.answered(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        Ok(response)
    }

    /// Answers what hyper did not accept as a request, in the form of all answers.
    async fn refuse(&self, transport: &mut Transport, refusal: Refusal) {
        let router = TowerToHyperService::new(self.refusals.clone());
        let Ok(answer) = router.call(refusal.into_request()).await;
        let (head, body) = answer.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return;
        };
        let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
        for (name, value) in &head.headers {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            text.extend_from_slice(&line.concat());
        }
        text.extend_from_slice(b"connection: close\r\n\r\n");
        text.extend_from_slice(&body);
        // It is short enough for the kernel to take it at once. A client that no longer reads does not get it.
        let send = async {
            transport.write_all(&text).await?;
            transport.shutdown().await
        };
        let _ = tokio::task::coop::unconstrained(send).now_or_never();
    }
}

enum Ended {
    ByItself(hyper::Result<()>),
    Shed,
    Reset,
}

/// Ends when the client has reset the connection.
async fn reset(socket: &TcpStream) {
    while !socket
        .ready(Interest::ERROR)
        .await
        .is_ok_and(|ready| ready.is_error())
    {}
}

/// Reads and discards what a client still sends after hyper has ended the connection. hyper does that after a refusal, and when a client that
/// asked for `connection: close` has its answer before it has sent all of its body.
async fn linger(socket: &TcpStream) {
    let began = Instant::now();
    let mut scratch = Vec::with_capacity(16 * 1024);
    let mut read = 0;
    while read < DRAIN_BYTES
        && began.elapsed() < DRAIN_TIME
        && timeout(DRAIN_SILENCE, socket.readable()).await.is_ok()
    {
        scratch.clear();
        match socket.try_read_buf(&mut scratch) {
            Ok(0) => return,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The connection as hyper sees it.
#[derive(Debug)]
struct Stream {
    transport: Transport,
    permit: Arc<Permit>,
    /// The status of an answer that hyper wanted to send by itself, and that was held back.
    refused: Option<StatusCode>,
    /// Nothing of an answer waits to be written.
    flushed: bool,
    /// Bytes of the answer that were written, and that the permit does not know of yet: TLS may still hold them.
    encrypted: usize,
}

impl Stream {
    fn poll_write_by(
        &mut self,
        begins_with: &[u8],
        write: impl FnOnce(Pin<&mut Transport>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = status_refused_by_hyper(begins_with) {
            self.refused = Some(status);
            return Poll::Ready(Ok(begins_with.len()));
        }
        self.flushed = false;
        let bytes = ready!(write(Pin::new(&mut self.transport)))?;
        self.encrypted += bytes;
        if self.transport.is_flushed() {
            self.report_written();
        }
        Poll::Ready(Ok(bytes))
    }

    fn report_written(&mut self) {
        self.permit.bytes_written(std::mem::take(&mut self.encrypted));
    }
}

/// The status of an answer that hyper sends by itself. It has not passed through our layers, and so has no request id.
fn status_refused_by_hyper(answer: &[u8]) -> Option<StatusCode> {
    const ID: &[u8] = b"\r\nx-request-id: ";
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let is_head = status.starts_with(b"4") && answer.ends_with(b"\r\n\r\n");
    if is_head && !answer.windows(ID.len()).any(|window| window == ID) {
        StatusCode::from_bytes(status).ok()
    } else {
        None
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.permit.bytes_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(bytes, |transport| transport.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper's own answers are heads without a body.
        let alone: &[u8] = if let [slice] = slices { slice } else { &[] };
        self.poll_write_by(alone, |transport| transport.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(context))?;
        self.report_written();
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
