//! The HTTP client, for requests to other services and to the outside world.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use reqwest::{ClientBuilder, Request, RequestBuilder, Response};

use super::context::{known_method, record_status};
use crate::logging::chain;
use crate::request_id::RequestId;
use crate::{tls, trace, trace_context};

/// Idle connections are closed after this time, before common servers and load balancers close them (60 s): otherwise a request could be
/// sent on a connection that its other side is closing.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections that are kept for each peer. A middlebox may have dropped them silently, and each dropped one costs a request its whole
/// timeout. With more of them a peer would seem to be away for longer than half a minute.
const MAX_IDLE: usize = 2;

/// Keepalive probes show middleboxes that a connection is in use. The kernel closes it when the other side has vanished.
const KEEPALIVE: Duration = Duration::from_secs(10);
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP/1.1 client. `timeout` covers a whole request, from the first connection attempt to the end of the body. Redirects are not
/// followed: they are returned as they are.
///
/// TLS trusts the public authorities, and those in the PEM file `extra_ca`, which is read again at each handshake.
/// Proxy variables of the environment are ignored: they are not part of the environment contract.
///
/// # Errors
/// `extra_ca` cannot be read, or holds no usable certificate.
pub fn client(timeout: Duration, extra_ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    built(builder(timeout, extra_ca)?)
}

/// As [`client`], for one of several replicas: requests for `host` go to `address`, of which the URL says the port. By TLS the replica has
/// to show a certificate for `host`.
///
/// # Errors
/// As [`client`].
pub fn client_at(
    timeout: Duration,
    extra_ca: Option<&Path>,
    host: &str,
    address: SocketAddr,
) -> anyhow::Result<reqwest::Client> {
    built(builder(timeout, extra_ca)?.resolve(host, address))
}

fn built(builder: ClientBuilder) -> anyhow::Result<reqwest::Client> {
    builder.build().context("the HTTP client could not be built")
}

fn builder(timeout: Duration, extra_ca: Option<&Path>) -> anyhow::Result<ClientBuilder> {
    let mut tls = tls::client_config(extra_ca).context("EXTRA_CA_FILE")?;
    tls.alpn_protocols = vec![tls::HTTP_1_1.to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(2)
        .tcp_user_timeout(USER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy())
}

/// Who receives a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// A service of the cluster. It gets the trace context and the id of the current request.
    Peer,
    /// Anyone else. They get neither.
    External,
}

/// Sends a request in a span under the current context. The span ends when the head of the response has arrived.
///
/// # Errors
/// The request cannot be built, or gets no response.
pub async fn send(request: RequestBuilder, recipient: Recipient) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let context = span(&request);
    if recipient == Recipient::Peer {
        trace_context::add_to_headers(&context, request.headers_mut());
        if let Some(id) = context.get::<RequestId>() {
            id.add_to_headers(request.headers_mut());
        }
    }
    let sent = client.execute(request).await;
    match &sent {
        Ok(response) => {
            let status = response.status();
            let is_failure = status.is_client_error() || status.is_server_error();
            record_status(&context, status, is_failure);
        }
        Err(error) => trace::fail(&context, error_type(error), chain(error)),
    }
    context.span().end();
    sent
}

/// The body of a response, or nothing if it is longer than `limit` bytes. It is read in chunks, because `Content-Length` may be absent or wrong.
///
/// # Errors
/// The body breaks off.
pub async fn body_up_to(limit: usize, mut response: Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The kind of a failure without a response.
fn error_type(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "_OTHER"
    }
}

/// Names and attributes follow OpenTelemetry's semantic conventions for HTTP.
fn span(request: &Request) -> Context {
    trace::start(&Context::current(), || {
        let (method, url) = (known_method(request.method()), request.url());
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.full", url.to_string()),
        ];
        if let Some(host) = url.host_str() {
            attributes.push(KeyValue::new("server.address", host.to_owned()));
        }
        if let Some(port) = url.port_or_known_default() {
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        SpanBuilder::from_name(method)
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_without_a_private_ca_is_built_without_an_installed_provider() -> anyhow::Result<()> {
        client(TIMEOUT, None).map(drop)
    }

    #[test]
    fn a_ca_file_that_is_missing_or_empty_is_refused_by_its_name() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("empty-ca.pem");
        for _ in 0..2 {
            let refusal = client(TIMEOUT, Some(&path))
                .err()
                .map(|error| format!("{error:#}"));
            assert!(refusal.is_some_and(|text| text.contains("empty-ca.pem")));
            std::fs::write(&path, "no certificate here\n")?;
        }
        Ok(())
    }
}
