//! The HTTP client with which a service asks another, or the outer world.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use reqwest::{Request, RequestBuilder, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::context::method;
use super::request_id::RequestId;
use crate::logging::chain;
use crate::{trace, trace_context};

/// A peer's idle connection is let go before common servers and load balancers (60 s) close it under a request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to one peer that are kept while idle. When what is on the way has silently forgotten them, each costs the request that meets
/// it the whole timeout: with a handful of them a peer would seem away for longer than half a minute.
const MAX_IDLE: usize = 2;

/// What is on the way is told that a connection still lives, and the kernel gives up one whose other side vanished.
const KEEPALIVE: Duration = Duration::from_secs(10);
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(20);

/// An HTTP/1.1 client: `timeout` bounds a whole request, from the first connection attempt to the end of the
/// body. Redirects come back as the answers they are.
///
/// TLS trusts the roots of webpki-roots, because a run image has no certificate store, and the certificates of
/// the PEM file `extra_ca`. Proxy variables of the environment are not read: what counts is in the environment
/// contract.
///
/// # Errors
///
/// `extra_ca` cannot be read, or holds no usable certificate.
pub fn client(timeout: Duration, extra_ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(extra_ca)?)
        .http1_only()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(2)
        .tcp_user_timeout(UNACKNOWLEDGED_FOR)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .build()
        .context("the HTTP client could not be built")
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// A service of the cluster: it is told the trace and the id of the request in hand.
    Peer,
    /// Somebody else, to whom neither is known.
    Stranger,
}

/// Sends a request as a part of what is done in the current context; the span ends when the head of the answer is here.
///
/// # Errors
/// The request cannot be made, or is not answered.
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
    end(&context, &sent);
    sent
}

/// Names and attributes are those of OpenTelemetry's semantic conventions for HTTP.
fn span(request: &Request) -> Context {
    trace::start(&Context::current(), || {
        let (method, url) = (method(request.method()), request.url());
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

fn end(context: &Context, sent: &reqwest::Result<Response>) {
    let span = context.span();
    match sent {
        Ok(response) => {
            let status = response.status();
            span.set_attribute(KeyValue::new(
                "http.response.status_code",
                i64::from(status.as_u16()),
            ));
            if status.is_client_error() || status.is_server_error() {
                span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                trace::fail(context, "");
            }
        }
        Err(error) => trace::fail(context, chain(error)),
    }
    span.end();
}

fn tls(extra_ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = extra_ca {
        trust(&mut roots, path).with_context(|| format!("EXTRA_CA_FILE {}", path.display()))?;
    }
    // The provider is named here, so that a client can be built before a process has installed its default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn trust(roots: &mut RootCertStore, path: &Path) -> anyhow::Result<()> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).context("cannot be read")? {
        roots
            .add(certificate.context("is not PEM")?)
            .context("holds a certificate that cannot be trusted")?;
    }
    ensure!(roots.len() > before, "holds no certificate");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::client;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_without_a_private_ca_is_built_without_an_installed_provider() -> anyhow::Result<()> {
        client(TIMEOUT, None).map(drop)
    }

    #[test]
    fn a_ca_file_that_is_missing_or_empty_is_refused_by_its_name() -> anyhow::Result<()> {
        let path = std::env::temp_dir().join(format!("pydist-empty-ca-{}.pem", std::process::id()));
        for _ in 0..2 {
            let refusal = client(TIMEOUT, Some(&path))
                .err()
                .map(|error| format!("{error:#}"));
            assert!(refusal.is_some_and(|text| text.contains("pydist-empty-ca")));
            std::fs::File::create(&path)?.write_all(b"no certificate here\n")?;
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
